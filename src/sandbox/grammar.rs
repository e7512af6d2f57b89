//! Faults as text: `OP:ITEM[,ITEM]…`, for example `start:status=503,retry-after=2,rate=0.1` or `watch:delay=3s,count=2`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::fault::Operation::{Start, Watch};
use super::fault::{Fault, Kind, Operation, WORDS};
use crate::clock;

/// The grammar in one sentence, for refusals to programs.
pub(super) const GRAMMAR: &str = "A fault is OP:ITEM[,ITEM]…, OP is start or watch; ITEM is at most one kind \
    (such as status=500, reset, truncate, hang) and any of delay=2s, rate=0.1, count=3";

/// Why a text is not a fault, in a sentence that says what would be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FaultError(String);

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let Some((operation, items)) = text.split_once(':') else {
            return Err(FaultError(format!(
                "`{text}` has no operation: write start:{text} or watch:{text}"
            )));
        };
        let operation = operation.trim().parse()?;
        let mut draft = Draft::default();
        for item in items
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            draft.add(operation, item)?;
        }
        draft.finish(operation)
    }
}

/// A fault whose items are still being read.
#[derive(Default)]
struct Draft {
    kind: Option<(String, Kind)>,
    retry_after: Option<u64>,
    delay: Option<Duration>,
    rate: Option<f64>,
    count: Option<u64>,
}

impl Draft {
    fn add(&mut self, operation: Operation, item: &str) -> Result<(), FaultError> {
        match item.split_once('=') {
            Some(("status", value)) => {
                let code = number(item, value, 200..=599, "a status is 200 to 599")?;
                self.set_kind(
                    item,
                    Kind::Status {
                        code,
                        retry_after: None,
                    },
                )
            }
            Some(("retry-after", value)) => {
                let seconds = number(item, value, 0..=u64::MAX, "retry-after is whole seconds")?;
                set("retry-after", &mut self.retry_after, seconds)
            }
            Some(("delay", value)) => {
                let delay =
                    clock::parse_duration(value).map_err(|expected| bad(item, &expected))?;
                set("delay", &mut self.delay, delay)
            }
            Some(("rate", value)) => set(
                "rate",
                &mut self.rate,
                number(item, value, 0.0..=1.0, "a rate is 0 to 1")?,
            ),
            Some(("count", value)) => {
                let count = number(
                    item,
                    value,
                    1..=u64::MAX,
                    "a count is a whole number from 1",
                )?;
                set("count", &mut self.count, count)
            }
            _ => match WORDS
                .iter()
                .find(|(word, _, by, _)| *word == item && by.contains(&operation))
            {
                Some((_, kind, ..)) => self.set_kind(item, *kind),
                None => Err(FaultError(format!(
                    "{operation} knows no fault `{item}`: it knows {}",
                    known(operation)
                ))),
            },
        }
    }

    fn set_kind(&mut self, item: &str, kind: Kind) -> Result<(), FaultError> {
        match self.kind.replace((item.to_owned(), kind)) {
            None => Ok(()),
            Some((first, _)) => Err(FaultError(format!(
                "`{first}` and `{item}` are two kinds: a fault has one, so write two faults"
            ))),
        }
    }

    fn finish(self, operation: Operation) -> Result<Fault, FaultError> {
        let kind = match (self.kind.map(|(_, kind)| kind), self.retry_after) {
            (
                Some(Kind::Status {
                    code: code @ (429 | 503),
                    ..
                }),
                retry_after,
            ) => Some(Kind::Status { code, retry_after }),
            (_, Some(seconds)) => {
                return Err(bad(
                    &format!("retry-after={seconds}"),
                    "it goes with status=429 or status=503",
                ));
            }
            (None, None) if self.delay.is_none() => {
                return Err(FaultError(format!(
                    "nothing goes wrong here: add a kind or a delay; {operation} knows {}",
                    known(operation)
                )));
            }
            (kind, None) => kind,
        };
        Ok(Fault {
            operation,
            kind,
            delay: self.delay,
            rate: self.rate.unwrap_or(1.0),
            count: self.count,
        })
    }
}

fn set<T>(name: &str, slot: &mut Option<T>, value: T) -> Result<(), FaultError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(FaultError(format!("`{name}` is set twice"))),
    }
}

fn number<T: FromStr + PartialOrd>(
    item: &str,
    value: &str,
    within: std::ops::RangeInclusive<T>,
    expected: &str,
) -> Result<T, FaultError> {
    value
        .parse()
        .ok()
        .filter(|number| within.contains(number))
        .ok_or_else(|| bad(item, expected))
}

fn bad(item: &str, expected: &str) -> FaultError {
    FaultError(format!("`{item}`: {expected}"))
}

fn known(operation: Operation) -> String {
    let words = WORDS
        .iter()
        .filter(|(_, _, by, _)| by.contains(&operation))
        .map(|(word, ..)| *word);
    let words: Vec<_> = std::iter::once("status=N").chain(words).collect();
    format!(
        "{}; with delay=D, rate=F, count=N, and retry-after=N beside status=429 or 503",
        words.join(", ")
    )
}

impl FromStr for Operation {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        match text {
            "start" => Ok(Start),
            "watch" => Ok(Watch),
            other => Err(FaultError(format!(
                "`{other}` is no operation: it is start or watch"
            ))),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Start => "start",
            Watch => "watch",
        })
    }
}

/// Writes the fault so that it can be parsed again, with the count that is left.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items = [
            self.kind.map(|kind| kind.to_string()),
            self.delay.map(|delay| match delay.as_millis() {
                whole if whole % 1000 == 0 => format!("delay={}s", whole / 1000),
                millis => format!("delay={millis}ms"),
            }),
            (self.rate < 1.0).then(|| format!("rate={}", self.rate)),
            self.count.map(|count| format!("count={count}")),
        ];
        write!(
            f,
            "{}:{}",
            self.operation,
            items.into_iter().flatten().collect::<Vec<_>>().join(",")
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Status {
                code,
                retry_after: None,
            } => write!(f, "status={code}"),
            Kind::Status {
                code,
                retry_after: Some(seconds),
            } => write!(f, "status={code},retry-after={seconds}"),
            word => f.write_str(
                WORDS
                    .iter()
                    .find(|(_, kind, ..)| kind == word)
                    .map_or("", |(text, ..)| text),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_reads_back_as_it_was_written() {
        let mut texts = vec![
            "start:status=500,rate=0.1".to_owned(),
            "start:status=503,retry-after=2,delay=250ms,rate=0.5,count=3".to_owned(),
            "watch:delay=3s".to_owned(),
        ];
        for (word, _, operations, _) in WORDS {
            texts.extend(
                operations
                    .iter()
                    .map(|operation| format!("{operation}:{word},count=1")),
            );
        }
        for text in texts {
            assert_eq!(
                text.parse::<Fault>().map(|fault| fault.to_string()),
                Ok(text)
            );
        }
    }

    #[test]
    fn what_is_no_fault_is_told_why() {
        for (text, why) in [
            ("reset", "write start:reset or watch:reset"),
            ("pay:reset", "start or watch"),
            ("start:", "nothing goes wrong"),
            ("start:rate=0.5", "nothing goes wrong"),
            ("start:reopen", "start knows no fault `reopen`"),
            ("watch:bad-code", "it knows status=N, reset"),
            ("start:reset,hang", "two kinds"),
            ("start:status=99", "200 to 599"),
            ("start:status=500,retry-after=1", "status=429 or status=503"),
            ("start:reset,rate=1.5", "0 to 1"),
            ("start:reset,rate=NaN", "0 to 1"),
            ("start:reset,count=0", "from 1"),
            ("start:reset,count=1,count=2", "set twice"),
            ("start:delay=soon", "delay=soon"),
        ] {
            let told = text
                .parse::<Fault>()
                .map_or_else(|error| error.to_string(), |fault| fault.to_string());
            assert!(told.contains(why), "{text}: {told}");
        }
    }

    #[test]
    fn the_first_fault_that_fires_wins_and_a_used_up_one_leaves() {
        let texts = [
            "watch:hang",
            "start:reset,rate=0",
            "start:huge,count=1",
            "start:truncate",
        ];
        let mut faults: Vec<Fault> = texts.iter().flat_map(|text| text.parse()).collect();
        let kinds = [(); 2].map(|()| Fault::fire(&mut faults, Start).and_then(|fault| fault.kind));
        assert_eq!(kinds, [Some(Kind::Huge), Some(Kind::Truncate)]);
        let left: Vec<_> = faults.iter().map(Fault::to_string).collect();
        assert_eq!(left, ["watch:hang", "start:reset,rate=0", "start:truncate"]);
    }
}
