//! A text that was decoded from another one.

use std::ops::Range;

use zeroize::Zeroizing;

/// Stands between two decoded pieces. No secret that is text has it.
const GAP: u8 = 0;

/// A text that was decoded. Where its bytes come from is only remembered if somebody wants to know.
#[derive(Default)]
pub(super) struct Decoded {
    bytes: Zeroizing<Vec<u8>>,
    /// Where each byte was in the other text: from, to.
    spans: Option<Vec<(u32, u32)>>,
    /// Where the present piece begins.
    piece: usize,
    /// The bytes that stand for others, in their order; `None` if all of them do.
    pub(super) changed: Option<Vec<usize>>,
}

impl Decoded {
    /// An empty text that remembers where its bytes come from.
    pub(super) fn with_spans() -> Self {
        Self {
            spans: Some(Vec::new()),
            ..Self::default()
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns where these bytes were in the other text.
    pub(super) fn span(&self, range: Range<usize>) -> Range<usize> {
        let spans = self.spans.as_deref().unwrap_or_default();
        let from = spans.get(range.start).map_or(0, |span| span.0);
        let to = spans.get(range.end - 1).map_or(0, |span| span.1);
        from as usize..to as usize
    }

    /// Adds a byte that this range of the other text stands for.
    pub(super) fn push(&mut self, byte: u8, from: Range<usize>) {
        self.bytes.push(byte);
        if let Some(spans) = &mut self.spans {
            let place = |at| u32::try_from(at).unwrap_or(u32::MAX);
            spans.push((place(from.start), place(from.end)));
        }
    }

    /// Adds what stands in this range of the other text as it is.
    pub(super) fn copy(&mut self, text: &[u8], range: Range<usize>) {
        if self.spans.is_some() {
            range.for_each(|at| self.push(text[at], at..at + 1));
        } else {
            self.bytes.extend_from_slice(&text[range]);
        }
    }

    /// Ends the present piece. It is dropped if it is shorter than `least`.
    pub(super) fn end_piece(&mut self, least: usize) {
        if self.bytes.len() - self.piece >= least {
            self.push(GAP, 0..0);
        } else {
            self.bytes.truncate(self.piece);
            if let Some(spans) = &mut self.spans {
                spans.truncate(self.piece);
            }
        }
        self.piece = self.bytes.len();
    }
}

/// Which bytes what is looked for is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alphabet {
    #[default]
    Ascii,
    /// Letters of all kinds.
    Text,
    /// Any bytes: the key of a webhook.
    All,
}

/// A text to decode, and what is worth it.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) bytes: &'a [u8],
    /// The bytes that have not been searched yet as what they are here, as in [`Decoded::changed`].
    pub(super) changed: Option<&'a [usize]>,
    /// What has been found in it, in its order.
    pub(super) found: &'a [Range<usize>],
    /// The length of the shortest piece that is looked for.
    pub(super) least: usize,
    pub(super) alphabet: Alphabet,
}

impl Source<'_> {
    /// Returns whether there is something new in this range, which is not taken out anyway.
    pub(super) fn is_new(&self, range: &Range<usize>) -> bool {
        let before = self.found.partition_point(|hit| hit.start <= range.start);
        let is_found = before > 0 && self.found[before - 1].end >= range.end;
        let is_new = |changed: &[usize]| {
            let next = changed.partition_point(|at| *at < range.start);
            changed.get(next).is_some_and(|at| *at < range.end)
        };
        !is_found && self.changed.is_none_or(is_new)
    }

    /// Returns whether the byte can be part of what is looked for, of something that stands for one, or of lines.
    pub(super) fn is_text(&self, byte: u8) -> bool {
        match byte {
            b'\t' | b'\r' | b'\n' | b' '..=b'~' => true,
            0x80.. => self.alphabet != Alphabet::Ascii,
            _ => self.alphabet == Alphabet::All,
        }
    }
}
