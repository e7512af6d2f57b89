//! Holds requests and answers against `/openapi.json`: the harness asks it about everything that goes through it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use hyper::{HeaderMap, Method};
use jsonschema::Validator;
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use crate::harness::{Answer, Block};

/// Headers of HTTP itself, which no document names.
const OF_HTTP: [&str; 5] = [
    "content-type",
    "content-length",
    "transfer-encoding",
    "connection",
    "date",
];
/// Schemas of answers that are tillgate's own. The document leaves them open, so that a client of today can read the
/// answers of a later version; here a field that is not described is a fault.
const OWN: [&str; 4] = ["Delivery", "DeliveryPage", "PaymentPage", "Problem"];

/// As it stands in the source.
pub static DOCUMENT: LazyLock<Document> = LazyLock::new(|| {
    Document::new(
        serde_json::from_str(include_str!("../../src/api/openapi.json"))
            .expect("openapi.json is JSON"),
    )
});

/// An OpenAPI document, and what was made of its schemas.
pub struct Document {
    pub value: Value,
    /// Its components, with the schemas in [`OWN`] closed.
    closed: Value,
    /// What every path is that is not in the document.
    elsewhere: Value,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

impl Document {
    /// One that a sidecar gave.
    pub fn new(value: Value) -> Self {
        let mut closed = value["components"].clone();
        for name in OWN {
            closed["schemas"][name]["additionalProperties"] = false.into();
        }
        // It fails like any other path, and is never found.
        let mut responses = value["paths"]["/openapi.json"]["get"]["responses"].clone();
        responses["404"] = json!({ "$ref": "#/components/responses/NotFound" });
        for status in ["200", "405"] {
            responses.as_object_mut().unwrap().remove(status);
        }
        Self {
            value,
            closed,
            elsewhere: json!({ "parameters": [], "responses": responses }),
            validators: Mutex::default(),
        }
    }

    /// Each path, with its method and operation: there is one for each.
    pub fn operations(&self) -> impl Iterator<Item = (&String, Method, &Value)> {
        self.value["paths"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(path, item)| {
                let [(method, operation)] =
                    item.as_object().unwrap().iter().collect::<Vec<_>>()[..]
                else {
                    panic!("more than one operation: {path}")
                };
                (path, method.to_uppercase().parse().unwrap(), operation)
            })
    }

    /// What a reference stands for.
    pub fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value.get("$ref").and_then(Value::as_str) {
            Some(reference) => self
                .value
                .pointer(reference.strip_prefix('#').unwrap())
                .expect("what it refers to"),
            None => value,
        }
    }

    /// Whether this is an instance of that schema of the document.
    pub fn validate(&self, schema: &Value, instance: &Value) -> Result<(), String> {
        let validator = {
            let mut validators = self.validators.lock().unwrap();
            let known = validators.entry(schema.to_string());
            known
                .or_insert_with(|| Arc::new(self.validator(schema)))
                .clone()
        };
        let errors: Vec<_> = validator
            .iter_errors(instance)
            .map(|error| error.to_string())
            .collect();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(format!("{}: {instance}", errors.join("; ")))
        }
    }

    fn validator(&self, schema: &Value) -> Validator {
        let mut root = schema.as_object().cloned().unwrap();
        // References are into the whole document; most schemas have none.
        if schema.to_string().contains("\"$ref\"") {
            root.insert("components".to_owned(), self.closed.clone());
        }
        let options = jsonschema::draft202012::options().should_validate_formats(true);
        options
            .build(&Value::Object(root))
            .unwrap_or_else(|error| panic!("no schema: {error}: {schema}"))
    }

    /// What the document says of this path.
    fn operation(&self, path: &str) -> (&str, Method, &Value) {
        let is_it = |template: &str| {
            let (mut names, mut parts) = (template.split('/'), path.split('/'));
            names
                .by_ref()
                .zip(parts.by_ref())
                .all(|(name, part)| name == part || name.starts_with('{'))
                && template.split('/').count() == path.split('/').count()
        };
        // A watch code may not have a slash in it, and is told so.
        let is_watch =
            |template: &str| template.starts_with("/watch/") && path.starts_with("/watch/");
        self.operations()
            .find(|(name, ..)| is_it(name) || is_watch(name))
            .map_or(
                ("elsewhere", Method::GET, &self.elsewhere),
                |(name, method, operation)| (name, method, operation),
            )
    }

    /// Whether a request that was granted is one of those that the document knows.
    pub fn request(
        &self,
        method: &Method,
        target: &str,
        headers: &HeaderMap,
        body: &str,
    ) -> Result<(), String> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (template, expected, operation) = self.operation(path);
        // HEAD is where GET is.
        if *method != expected && (method, &expected) != (&Method::HEAD, &Method::GET) {
            return Err(format!("{template} has no {method}"));
        }
        let of_path: HashMap<_, _> = template.split('/').zip(path.split('/')).collect();
        for parameter in operation["parameters"].as_array().unwrap() {
            let parameter = self.resolve(parameter);
            let name = parameter["name"].as_str().unwrap();
            let given = match parameter["in"].as_str().unwrap() {
                "path" => of_path
                    .get(format!("{{{name}}}").as_str())
                    .map(|part| Cow::Borrowed(*part)),
                "query" => form_urlencoded::parse(query.as_bytes())
                    .find(|(other, _)| other == name)
                    .map(|(_, value)| value),
                _ => headers
                    .get(name)
                    .and_then(|value| value.to_str().ok())
                    .map(Cow::Borrowed),
            };
            match given {
                Some(text) => self
                    .text(&parameter["schema"], &text)
                    .map_err(|why| format!("{name}: {why}"))?,
                None if parameter["required"] == true => return Err(format!("no {name}")),
                None => {}
            }
        }
        let Some(content) = operation.pointer("/requestBody/content/application~1json/schema")
        else {
            return Ok(());
        };
        let body: Value =
            serde_json::from_str(body).map_err(|error| format!("the body: {error}"))?;
        self.validate(content, &body)
    }

    /// Whether the document knows such an answer to that request.
    pub fn answer(&self, method: &Method, target: &str, answer: &Answer) -> Result<(), String> {
        let response = self.head(target, answer.status, &answer.headers)?;
        if *method == Method::HEAD {
            Ok(())
        } else {
            self.body(target, response, answer)
        }
    }

    /// Whether the document knows such an answer to any request.
    pub fn some_answer(&self, answer: &Answer) -> Result<(), String> {
        let mut faults = Vec::new();
        for (path, ..) in self.operations() {
            match self.answer(&Method::GET, path, answer) {
                Ok(()) => return Ok(()),
                Err(fault) => faults.push(format!("{path}: {fault}")),
            }
        }
        Err(faults.join("\n"))
    }

    /// Whether it knows an answer with this status and these headers; what it says of that response.
    pub fn head(&self, target: &str, status: u16, headers: &HeaderMap) -> Result<&Value, String> {
        let (template, _, operation) = self.operation(target.split('?').next().unwrap());
        let response = operation["responses"].get(status.to_string());
        let response =
            self.resolve(response.ok_or_else(|| format!("{template} does not answer {status}"))?);
        let nothing = Map::new();
        let described = response
            .get("headers")
            .and_then(Value::as_object)
            .unwrap_or(&nothing);
        for (name, header) in described {
            let header = self.resolve(header);
            match headers.get(name) {
                Some(value) => self
                    .text(&header["schema"], value.to_str().unwrap())
                    .map_err(|why| format!("{template} {status}, {name}: {why}"))?,
                None if header["required"] == true => {
                    return Err(format!("{template} {status} has no {name}"));
                }
                None => {}
            }
        }
        let is_described = |name: &str| {
            described
                .keys()
                .any(|known| known.eq_ignore_ascii_case(name))
        };
        match headers
            .keys()
            .find(|name| !OF_HTTP.contains(&name.as_str()) && !is_described(name.as_str()))
        {
            Some(name) => Err(format!(
                "{template} {status} has the header {name}, which is not described"
            )),
            None => Ok(response),
        }
    }

    fn body(&self, target: &str, response: &Value, answer: &Answer) -> Result<(), String> {
        let kind = answer.header("content-type").split(';').next().unwrap();
        let Some(content) = response.get("content") else {
            let is_empty = kind.is_empty() && answer.body.is_empty();
            return if is_empty {
                Ok(())
            } else {
                Err(format!("{} has a body: {kind}", answer.status))
            };
        };
        let content = content
            .get(kind)
            .ok_or_else(|| format!("{} is not {kind:?}", answer.status))?;
        if kind == "text/event-stream" {
            let mut blocks = answer.body.split_terminator("\n\n").map(Block::parse);
            return blocks.try_for_each(|block| {
                if block.data.is_empty() {
                    Ok(())
                } else {
                    self.event(target, &block)
                }
            });
        }
        if kind == "text/csv" {
            return Ok(());
        }
        let body = serde_json::from_str(&answer.body)
            .map_err(|error| format!("{error}: {}", answer.body))?;
        self.validate(&content["schema"], &body)
            .and_then(|()| match kind {
                "application/problem+json" => problem(response, answer.status, &body),
                _ => Ok(()),
            })
            .map_err(|why| format!("{target} {}: {why}", answer.status))
    }

    /// Whether it knows such an event of that stream.
    pub fn event(&self, target: &str, block: &Block) -> Result<(), String> {
        let (template, _, operation) = self.operation(target.split('?').next().unwrap());
        let schema = operation.pointer("/responses/200/content/text~1event-stream/schema");
        let stream = self.resolve(schema.ok_or_else(|| format!("{template} is no stream"))?);
        let schema = self.resolve(&stream["contentSchema"]["items"]);
        let mut event = serde_json::json!({ "event": block.event, "data": block.data });
        if !block.id.is_empty() {
            event["id"] = Value::from(&*block.id);
        }
        let several = schema["oneOf"]
            .as_array()
            .map_or_else(|| vec![schema], |several| several.iter().collect());
        let kinds: Vec<_> = several.into_iter().map(|kind| self.resolve(kind)).collect();
        let faults: Vec<_> = kinds
            .iter()
            .filter_map(|kind| self.validate(kind, &event).err())
            .collect();
        let kind = kinds
            .iter()
            .find(|kind| self.validate(kind, &event).is_ok())
            .ok_or_else(|| faults.join("; "))?;
        let data = serde_json::from_str(&block.data)
            .map_err(|error| format!("{error}: {}", block.data))?;
        self.validate(&kind["properties"]["data"]["contentSchema"], &data)
    }

    /// Whether a header or parameter is as that schema has it.
    fn text(&self, schema: &Value, text: &str) -> Result<(), String> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // Zeros may stand before it, and it may be too long for any number.
        let number = || Value::from(text.parse().unwrap_or(u64::MAX));
        let value = if schema["type"] == "integer" && digits {
            number()
        } else {
            Value::from(text)
        };
        self.validate(schema, &value)
    }
}

/// Whether a problem has a word of this response, and says what the answer says.
fn problem(response: &Value, status: u16, problem: &Value) -> Result<(), String> {
    let error = &problem["error"];
    let codes = response["x-error-codes"].as_array();
    if !codes.is_some_and(|codes| codes.contains(error)) {
        return Err(format!("{error} is not a word of this response"));
    }
    let kind = format!("urn:tillgate:error:{}", error.as_str().unwrap());
    if problem["status"] == status && problem["type"] == *kind {
        Ok(())
    } else {
        Err(format!("not a problem {error} with {status}: {problem}"))
    }
}
