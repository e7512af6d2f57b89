//! The promises of tillgate, proved from outside: the real app over the real sandbox gateway.

mod browser;
mod clients;
mod harness;
mod layers;
