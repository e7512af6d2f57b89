//! The promises of tillgate, proved from outside: the real app over the real sandbox gateway.

mod harness;
mod layers;
