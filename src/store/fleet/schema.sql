-- The tables of a store in a database, which tillgate makes by itself where its user may. This may be run again: what is
-- there stays as it is. Where another user runs it, tillgate's own needs these rights (USER is that of store.url):
--   grant usage on schema "{schema}" to USER;
--   grant select, insert, update, delete on all tables in schema "{schema}" to USER;

create schema if not exists "{schema}";

-- One row: which version the tables have, the journal that they belong to, and the gateway.
create table if not exists "{schema}".meta (
    one boolean primary key default true check (one),
    version integer not null,
    readable_from integer not null,
    run text not null,
    gateway text not null
);

-- The one log of all replicas: a row for each write, with its events.
create table if not exists "{schema}".log (
    position bigint primary key,
    mark text not null,
    at timestamptz not null default clock_timestamp(),
    events text not null
);

-- What the log says, for a replica that starts.
create table if not exists "{schema}".rows (
    kind smallint not null,
    key bytea not null,
    value bytea not null,
    primary key (kind, key)
);

-- What may be lost: after a crash of the server these are empty, and are filled again within seconds.
create unlogged table if not exists "{schema}".members (
    member text primary key,
    name text not null,
    version text not null,
    config text not null,
    seen_at timestamptz not null,
    reads boolean not null,
    posts boolean not null
);

create unlogged table if not exists "{schema}".leases (
    name text primary key,
    by text not null,
    attempt bigint not null,
    note bytea not null,
    until timestamptz not null
);

create unlogged table if not exists "{schema}".gauge (
    name text primary key,
    tat timestamptz not null
);

create unlogged table if not exists "{schema}".places (
    n integer primary key,
    by text,
    free_at timestamptz not null
);

create unlogged table if not exists "{schema}".asks (
    watch_code text primary key,
    by text not null,
    busy_until timestamptz not null,
    asked_at timestamptz
);
