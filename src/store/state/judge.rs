//! Whether what the gateway gave to a start may be revealed to its caller.

use std::sync::Arc;

use super::keys::Answers;
use super::payments::Records;
use crate::store::event::Event;
use crate::store::model::{CodeReused, StoredPayment};

/// Judges starts in the order in which they are about to be written.
pub(in crate::store) struct Judge<'a> {
    pub(super) payments: &'a Records,
    pub(super) answers: &'a Answers,
    /// Those that were found to be new, and whether they were made under a key.
    pub(super) begun: Vec<(Arc<StoredPayment>, bool)>,
}

impl Judge<'_> {
    /// Turns the start of an open payment that was started before, by the same request as far as is known, into
    /// [`Event::Again`]: a gateway may have keys of its own.
    ///
    /// # Errors
    /// [`CodeReused`] if one of its codes is that of another payment.
    pub(in crate::store) fn judge(&mut self, event: &mut Event) -> Result<(), CodeReused> {
        let Event::Started { stored, answer, .. } = event else {
            return Ok(());
        };
        let Some((known, has_key)) = self.known(stored) else {
            self.begun.push((stored.clone(), answer.is_some()));
            return Ok(());
        };
        if !self.is_the_same(stored, &known, has_key) {
            let codes = |stored: &StoredPayment| {
                let payment = &stored.payment;
                (payment.code.clone(), payment.watch_code.clone())
            };
            return Err(CodeReused {
                given: codes(stored),
                known: codes(&known),
            });
        }
        *event = Event::Again {
            answer: answer.take(),
        };
        Ok(())
    }

    /// Returns the payment that has one of these codes, and whether it was answered under a live key.
    fn known(&self, stored: &StoredPayment) -> Option<(Arc<StoredPayment>, bool)> {
        let payment = &stored.payment;
        let begun = self.begun.iter().find(|(begun, _)| {
            begun.payment.code == payment.code || begun.payment.watch_code == payment.watch_code
        });
        begun.cloned().or_else(|| {
            let known = self
                .payments
                .with_codes(&payment.code, &payment.watch_code)?;
            let has_key = self.answers.has_payment(&known.payment.watch_code);
            Some((known, has_key))
        })
    }

    fn is_the_same(&self, stored: &StoredPayment, known: &StoredPayment, has_key: bool) -> bool {
        let (given, before) = (&stored.payment, &known.payment);
        let record = self.payments.get(&before.watch_code);
        given.code == before.code
            && given.watch_code == before.watch_code
            && given.amount == before.amount
            && given.reference() == before.reference()
            && !record.is_some_and(|record| record.is_final())
            && (!has_key || given.fields.name_the_same(before.fields))
    }
}
