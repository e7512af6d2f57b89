//! Escapes text in HTML pages.

use std::fmt::{self, Display};

/// Escapes text for the content of an element or for a quoted attribute.
pub(crate) fn text(raw: &str) -> Text<'_> {
    Text(raw)
}

/// The result of [`text`]; its `Display` writes the escaped text.
pub(crate) struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| match char {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            other => write!(f, "{other}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_leave_its_place() {
        assert_eq!(
            text(r#"<a b="c" d='e'>&"#).to_string(),
            "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;"
        );
    }
}
