//! Takes values from Python, with errors that name their field.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use bytes::Bytes;
use iroh_gossip_discovery::{EndpointId, Readiness};
use pyo3::{
    exceptions::{PyTypeError, PyUnicodeError},
    prelude::*,
    types::{PyBool, PyByteArray, PyBytes, PyFloat, PyInt, PyMapping, PyMemoryView, PyString},
};

use crate::error::{invalid, raise};

/// Makes a `TypeError` that names the field, the expected type and the given one.
pub(crate) fn wrong_type(field: &str, expected: &str, value: &Bound<'_, PyAny>) -> PyErr {
    match value.get_type().name() {
        Ok(name) => PyTypeError::new_err(format!("{field} must be {expected}, not {name}")),
        Err(error) => error,
    }
}

pub(crate) fn text(field: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    let text = value.cast::<PyString>().map_err(|_| wrong_type(field, "str", value))?;
    text.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyUnicodeError>(value.py()) {
            invalid(value.py(), field, "has a lone surrogate in it, so it is not valid Unicode")
        } else {
            error
        }
    })
}

/// Takes an endpoint id: 64 lower-case hex digits.
pub(crate) fn endpoint_id(field: &str, value: &Bound<'_, PyAny>) -> PyResult<EndpointId> {
    let id = text(field, value)?;
    EndpointId::from_str(&id)
        .map_err(|_| invalid(value.py(), field, &format!("{id:?} is not 64 lower-case hex digits")))
}

/// Takes bytes: `bytes`, `bytearray` or a contiguous `memoryview`.
pub(crate) fn bytes(field: &str, value: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    with_bytes(field, value, Bytes::copy_from_slice)
}

/// Lends bytes as [`bytes`] does, without a copy, for a caller that copies only a part or into a
/// place of its own.
pub(crate) fn with_bytes<T>(
    field: &str,
    value: &Bound<'_, PyAny>,
    take: impl FnOnce(&[u8]) -> T,
) -> PyResult<T> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(take(bytes.as_bytes()));
    }
    let is_buffer = value.is_instance_of::<PyByteArray>() || value.is_instance_of::<PyMemoryView>();
    if !is_buffer {
        return Err(wrong_type(field, "bytes, bytearray or memoryview", value));
    }
    let bytes = value.py().get_type::<PyBytes>().call1((value,))?;
    Ok(take(bytes.cast::<PyBytes>()?.as_bytes()))
}

pub(crate) fn boolean(field: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(value.cast::<PyBool>().map_err(|_| wrong_type(field, "bool", value))?.is_true())
}

pub(crate) fn count(field: &str, value: &Bound<'_, PyAny>) -> PyResult<usize> {
    if !value.is_instance_of::<PyInt>() || value.is_instance_of::<PyBool>() {
        return Err(wrong_type(field, "int", value));
    }
    value.extract().map_err(|_| {
        let reason = format!("must be 0 to {}, is {value}", usize::MAX);
        invalid(value.py(), field, &reason)
    })
}

pub(crate) fn number(field: &str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    if !value.is_instance_of::<PyInt>() || value.is_instance_of::<PyBool>() {
        return Err(wrong_type(field, "int", value));
    }
    value.extract().map_err(|_| {
        let reason = format!("must be 0 to {}, is {value}", u64::MAX);
        invalid(value.py(), field, &reason)
    })
}

pub(crate) fn seconds(field: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let plain = value.is_instance_of::<PyFloat>() || value.is_instance_of::<PyInt>();
    if !plain || value.is_instance_of::<PyBool>() {
        return Err(wrong_type(field, "a number of seconds", value));
    }
    let py = value.py();
    let seconds = value
        .extract::<f64>()
        .map_err(|_| invalid(py, field, &format!("is {value} seconds, which is too long")))?;
    if seconds < 0.0 {
        return Err(invalid(py, field, &format!("must not be negative, is {value} seconds")));
    }
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| invalid(py, field, &format!("is {value} seconds, which is not a duration")))
}

/// Takes a list. A bare text is refused, because its characters are not meant as items.
pub(crate) fn list<T>(
    field: &str,
    of: &str,
    value: &Bound<'_, PyAny>,
    item: impl Fn(&str, &Bound<'_, PyAny>) -> PyResult<T>,
) -> PyResult<Vec<T>> {
    let refused = || wrong_type(field, &format!("a sequence of {of}"), value);
    if value.is_instance_of::<PyString>() || value.is_instance_of::<PyBytes>() {
        return Err(refused());
    }
    let iterator = value.try_iter().map_err(|_| refused())?;
    iterator.enumerate().map(|(index, value)| item(&format!("{field}[{index}]"), &value?)).collect()
}

pub(crate) fn metadata(value: &Bound<'_, PyAny>) -> PyResult<BTreeMap<String, String>> {
    if value.is_none() {
        return Ok(BTreeMap::new());
    }
    let map = value
        .cast::<PyMapping>()
        .map_err(|_| wrong_type("metadata", "a mapping of str to str", value))?;
    map.items()?
        .iter()
        .map(|item| {
            let (key, value) = item.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
            let name = text("metadata key", &key)?;
            let value = text(&format!("metadata[{name:?}]"), &value)?;
            Ok((name, value))
        })
        .collect()
}

/// Takes protocols (ALPNs). Text stands for its UTF-8 bytes.
pub(crate) fn protocols(value: &Bound<'_, PyAny>) -> PyResult<Vec<Vec<u8>>> {
    list("protocols", "str or bytes", value, bytes_or_text)
}

/// Takes bytes, or text for its UTF-8 bytes.
pub(crate) fn bytes_or_text(field: &str, value: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    match value.cast::<PyBytes>() {
        Ok(bytes) => Ok(bytes.as_bytes().to_vec()),
        Err(_) if value.is_instance_of::<PyString>() => text(field, value).map(String::into_bytes),
        Err(_) => Err(wrong_type(field, "str or bytes", value)),
    }
}

/// Takes a secret key as 32 bytes.
pub(crate) fn secret_key(value: &Bound<'_, PyAny>) -> PyResult<[u8; 32]> {
    let bytes = match value.cast::<PyBytes>() {
        Ok(bytes) => bytes.as_bytes().to_vec(),
        Err(_) => match value.cast::<PyByteArray>() {
            Ok(bytes) => bytes.to_vec(),
            Err(_) => return Err(wrong_type("secret_key", "bytes", value)),
        },
    };
    let length = bytes.len();
    bytes
        .try_into()
        .map_err(|_| invalid(value.py(), "secret_key", &format!("must be 32 bytes, is {length}")))
}

/// Takes what a node may announce of its readiness, by name.
pub(crate) fn readiness(value: &Bound<'_, PyAny>) -> PyResult<Readiness> {
    let name = text("readiness", value)?;
    Readiness::from_str(&name).map_err(|error| raise(value.py(), error.into()))
}
