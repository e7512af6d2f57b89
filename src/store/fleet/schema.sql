-- The tables of a store in a database, version 1. A replica makes them by itself where its user may. This may be run again:
-- what is there stays as it is. Where another user runs it, tillgate's own needs these rights (USER is that of store.url):
--   grant usage on schema "{schema}" to USER;
--   grant select, insert, update, delete on all tables in schema "{schema}" to USER;

do $$ begin
  if to_regnamespace('{schema}') is null then create schema "{schema}"; end if;
end $$;

-- One row. run names the journal of changes; a store belongs to one gateway.
create table if not exists "{schema}".meta (
  one bool primary key default true check (one),
  version int not null,
  readable_from int not null,
  run text not null,
  gateway text not null,
  complete_since bigint not null
);

-- Every write, in one order: whoever adds the row after the last one has seen all before it. mark tells two writes of one
-- position apart, tries says how often the same write was sent.
create table if not exists "{schema}".log (
  position bigint primary key,
  mark text not null,
  tries int not null default 0,
  at timestamptz not null default clock_timestamp(),
  events text not null
);

-- What all writes together say, for a replica that starts. kind: 0 payments, 1 changes, 2 answers to keys, 3 webhooks.
create table if not exists "{schema}".rows (
  kind smallint not null,
  key bytea not null,
  value bytea not null,
  primary key (kind, key)
);

-- What follows only spares calls to the gateway and keeps its limits. It may be lost, and so it is not logged.

-- The replicas, and when each was heard of last.
create unlogged table if not exists "{schema}".members (
  member text primary key,
  name text not null,
  version text not null,
  config text not null,
  reads bool not null,
  posts bool not null,
  seen_at timestamptz not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01);

-- What one replica does at a time: a start of a key or a reference, a try of a webhook.
create unlogged table if not exists "{schema}".leases (
  name text primary key,
  by text not null,
  attempt text not null,
  note bytea not null,
  until timestamptz not null
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01);

-- start.rate: when the next start has its turn.
create unlogged table if not exists "{schema}".gauge (
  name text primary key,
  tat timestamptz not null,
  granted int not null
) with (fillfactor = 10, autovacuum_vacuum_scale_factor = 0.01);

-- watch.poll_rate: as many places, each of which rests for a second after a call.
create unlogged table if not exists "{schema}".places (
  n int primary key,
  by text,
  free_at timestamptz not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01);

-- Who asks the gateway for a payment, and when it was asked last.
create unlogged table if not exists "{schema}".asks (
  watch_code text primary key,
  by text,
  claimed_at timestamptz,
  busy_until timestamptz,
  asked_at timestamptz
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01);
