//! The promises of tillgate, proved from outside: the real app over the real sandbox gateway.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "this is how a test fails, and what it is made of"
)]

mod admin;
mod binary;
mod browser;
mod canary;
mod client_streams;
mod clients;
mod comeback;
mod containers;
mod crossed;
mod crowd;
mod deploy;
mod deploy_systemd;
mod described;
mod dev;
mod dice;
mod echo;
mod events;
mod faults;
mod fleet;
mod gateway;
mod harness;
mod hostile;
mod keys;
mod kills;
mod layers;
mod ledger;
mod lists;
mod log;
mod machine;
mod memory;
mod merchants;
mod network;
mod openapi;
mod openapi_tools;
mod pages;
mod paused;
mod payments;
mod problems;
mod reading;
mod receiver;
mod references;
mod room;
mod rotation;
mod sandbox;
mod schedule;
mod scripted;
mod secret;
mod server;
mod siege;
mod sockets;
mod start;
mod store;
mod stream;
mod sweep;
mod systemd;
mod tls;
mod unix;
mod wait;
mod watch;
mod webhook;
