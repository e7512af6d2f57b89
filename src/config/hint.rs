//! How a setting is set where there is no configuration file: in `tillgate dev`.

use figment::value::Value;

use super::environment::variable_of;
use super::reading::Reading;

/// What `dev` sets itself.
const OF_DEV: [&str; 4] = [
    "gateway.url",
    "gateway.public_url",
    "merchant.",
    "listen.address",
];

/// Returns the variables of the settings that a text names; `None` if it names none that `dev` leaves to its user.
pub(crate) fn hint(text: &str) -> Option<String> {
    let defaults = Reading::new().defaults;
    // What stands in quotes comes from outside.
    let own = text.split('"').step_by(2);
    let words = own.flat_map(|part| {
        part.split(|c: char| !(c.is_ascii_lowercase() || c == '_' || c == '.'))
            .map(|word| word.trim_matches('.'))
    });
    let variables: Vec<_> = words
        .filter(|word| !OF_DEV.iter().any(|own| word.starts_with(own)))
        .filter_map(|word| {
            let example = match defaults.get(word)? {
                Value::Array(..) => r#"'["…"]'"#,
                _ => "…",
            };
            Some(format!("{}={example}", variable_of(word)))
        })
        .collect();
    (!variables.is_empty()).then(|| {
        let variables = variables.join(" or ");
        format!("In dev that is a variable: {variables} tillgate dev")
    })
}
