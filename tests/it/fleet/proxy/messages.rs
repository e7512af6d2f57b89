//! The messages of PostgreSQL's protocol, version 3, as far as a request and its answer have to be told apart.

/// The codes of the first packets that have no version: a client asks for TLS or GSSAPI, and gets one byte.
const ASKS: [u32; 2] = [80_877_103, 80_877_104];

/// What a client sends.
#[derive(Default)]
pub struct Requests {
    pub bytes: Vec<u8>,
    has_begun: bool,
    number: u64,
}

/// One request: everything up to the message that makes the server answer.
pub struct Request {
    /// What comes before the first statement has number 0.
    pub number: u64,
    pub bytes: Vec<u8>,
    /// It is answered by one byte, which is no message.
    pub asks_for_a_byte: bool,
}

impl Requests {
    pub fn next(&mut self) -> Option<Request> {
        if !self.has_begun {
            let length = word(&self.bytes, 0)?;
            let code = word(&self.bytes, 4)?;
            if self.bytes.len() < length {
                return None;
            }
            let asks_for_a_byte = ASKS.iter().any(|ask| *ask as usize == code);
            self.has_begun = !asks_for_a_byte;
            return Some(Request {
                number: 0,
                bytes: self.bytes.drain(..length).collect(),
                asks_for_a_byte,
            });
        }
        let mut end = 0;
        loop {
            let kind = *self.bytes.get(end)?;
            end += 1 + word(&self.bytes, end + 1)?;
            if self.bytes.len() < end {
                return None;
            }
            match kind {
                // Query, Sync: the server answers, and says that it is ready for the next.
                b'Q' | b'S' => {
                    self.number += 1;
                    break;
                }
                // A password, an end.
                b'p' | b'X' => break,
                _ => {}
            }
        }
        Some(Request {
            number: self.number,
            bytes: self.bytes.drain(..end).collect(),
            asks_for_a_byte: false,
        })
    }
}

/// What a server sends.
#[derive(Default)]
pub struct Answers {
    pub bytes: Vec<u8>,
    number: u64,
}

/// One message of an answer.
pub struct Answer {
    /// That of its request.
    pub number: u64,
    pub bytes: Vec<u8>,
    pub is_last: bool,
}

impl Answers {
    /// `has_byte`: a single byte comes first.
    pub fn next(&mut self, has_byte: bool) -> Option<Answer> {
        let kind = *self.bytes.first()?;
        let length = if has_byte {
            1
        } else {
            1 + word(&self.bytes, 1)?
        };
        if self.bytes.len() < length {
            return None;
        }
        let answer = Answer {
            number: self.number,
            bytes: self.bytes.drain(..length).collect(),
            // Ready for the next.
            is_last: !has_byte && kind == b'Z',
        };
        self.number += u64::from(answer.is_last);
        Some(answer)
    }
}

/// Four bytes from there on.
fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + 4)?;
    let word = u32::from_be_bytes(bytes.try_into().expect("four bytes"));
    usize::try_from(word).ok()
}
