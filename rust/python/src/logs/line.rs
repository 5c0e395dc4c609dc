//! One line of the log, on its way from the place that logs to Python.

use std::{
    fmt::{self, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use pyo3::{
    IntoPyObjectExt,
    prelude::*,
    types::{PyDict, PyTuple},
};
use tracing::{
    Metadata,
    field::{Field, Visit},
};

/// Most bytes of a text. A longer one is cut.
const MAX_TEXT: usize = 1024;

/// The number of loggers. Their numbers are the indices of the tuple in
/// `iroh_gossip_discovery._logs`.
pub(super) const SOURCES: usize = 3;
/// Thresholds above every level, so that no line is wanted.
pub(super) const NOTHING: [u8; SOURCES] = [u8::MAX; SOURCES];

/// Returns the logger that a target belongs to: one for each of our crates, and one for all others.
pub(super) fn source(target: &str) -> usize {
    match target.split("::").next() {
        Some("iroh_gossip_discovery" | "_core") => 0,
        Some("iroh_gossip_discovery_proto") => 1,
        _ => 2,
    }
}

/// What Python calls a warning.
pub(super) const WARNING: u8 = 30;

/// Returns a level as Python numbers it.
pub(super) fn level(level: tracing::Level) -> u8 {
    match level {
        tracing::Level::ERROR => 40,
        tracing::Level::WARN => WARNING,
        tracing::Level::INFO => 20,
        tracing::Level::DEBUG => 10,
        tracing::Level::TRACE => 5,
    }
}

/// A line.
pub(super) struct Line {
    pub(super) metadata: &'static Metadata<'static>,
    pub(super) at: SystemTime,
    pub(super) said: Said,
}

impl Line {
    /// Returns the arguments for Python's `deliver`.
    pub(super) fn into_arguments(self, py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
        let fields = PyDict::new(py);
        for (name, value) in &self.said.fields {
            fields.set_item(name, value)?;
        }
        let metadata = self.metadata;
        let at = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let place = (metadata.target(), metadata.file(), metadata.line());
        (
            source(metadata.target()),
            level(*metadata.level()),
            at.as_secs_f64(),
            place,
            self.said.message,
            fields,
        )
            .into_pyobject(py)
    }
}

/// The fields of an event or a span.
#[derive(Clone, Default)]
pub(super) struct Said {
    pub(super) message: String,
    pub(super) fields: Vec<(&'static str, Value)>,
}

/// Returns the value of a field.
#[derive(Clone)]
pub(super) enum Value {
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
}

impl<'py> IntoPyObject<'py> for &Value {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Value::Bool(value) => value.into_bound_py_any(py),
            Value::Signed(value) => value.into_bound_py_any(py),
            Value::Unsigned(value) => value.into_bound_py_any(py),
            Value::Float(value) => value.into_bound_py_any(py),
            Value::Text(value) => value.into_bound_py_any(py),
        }
    }
}

/// A text that takes at most [`MAX_TEXT`] bytes, and no part of a character.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MAX_TEXT - self.0.len();
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        let end = (0..=room).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        self.0.push_str(&text[..end]);
        Err(fmt::Error)
    }
}

fn bounded(text: fmt::Arguments<'_>) -> String {
    let mut bounded = Bounded(String::new());
    if bounded.write_fmt(text).is_err() {
        bounded.0.push('…');
    }
    bounded.0
}

impl Said {
    fn push(&mut self, field: &Field, value: Value) {
        self.fields.push((field.name(), value));
    }

    fn text(&mut self, field: &Field, text: String) {
        if field.name() == "message" {
            self.message = text;
        } else {
            self.push(field, Value::Text(text));
        }
    }
}

impl Visit for Said {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, Value::Float(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::Signed(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Value::Unsigned(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::Bool(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, bounded(format_args!("{value}")));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, bounded(format_args!("{value:?}")));
    }
}
