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

/// Longer than any time that a caller can mean: 31,000 years.
const LONGEST: Duration = Duration::from_secs(1_000_000_000_000);

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

/// Takes an int whose limit the caller checks: one that is beyond 64 bits becomes the largest, so
/// that the error names the field's own limit.
pub(crate) fn bounded(field: &str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    integer(field, value)?;
    if value.lt(0)? {
        return Err(invalid(value.py(), field, &format!("must not be negative, is {value}")));
    }
    Ok(value.extract().unwrap_or(u64::MAX))
}

/// Takes a number of things, as [`bounded`] does.
pub(crate) fn count(field: &str, value: &Bound<'_, PyAny>) -> PyResult<usize> {
    Ok(usize::try_from(bounded(field, value)?).unwrap_or(usize::MAX))
}

fn integer(field: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    if !value.is_instance_of::<PyInt>() || value.is_instance_of::<PyBool>() {
        return Err(wrong_type(field, "int", value));
    }
    Ok(())
}

/// Takes an int for which 64 bits are the limit.
pub(crate) fn number(field: &str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    integer(field, value)?;
    value.extract().map_err(|_| {
        let reason = format!("must be 0 to {}, is {value}", u64::MAX);
        invalid(value.py(), field, &reason)
    })
}

/// Takes seconds, at most [`LONGEST`], so that sums of two do not overflow.
pub(crate) fn seconds(field: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let seconds = seconds_up_to_any(field, value)?;
    if seconds > LONGEST {
        let reason = format!("is {value} seconds, the limit is {}", LONGEST.as_secs());
        return Err(invalid(value.py(), field, &reason));
    }
    Ok(seconds)
}

/// Takes seconds whose limit the caller checks: more than [`LONGEST`] becomes a little more than
/// that, so that the error names the field's own limit.
pub(crate) fn seconds_up_to_any(field: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let plain = value.is_instance_of::<PyFloat>() || value.is_instance_of::<PyInt>();
    if !plain || value.is_instance_of::<PyBool>() {
        return Err(wrong_type(field, "a number of seconds", value));
    }
    let py = value.py();
    if value.lt(0)? {
        return Err(invalid(py, field, &format!("must not be negative, is {value} seconds")));
    }
    // An int may be more than a float can hold.
    let seconds = value.extract::<f64>().unwrap_or(f64::MAX);
    if !seconds.is_finite() {
        let reason = format!("is {value} seconds, which is not a duration");
        return Err(invalid(py, field, &reason));
    }
    let longer = LONGEST + Duration::from_secs(1);
    Ok(Duration::try_from_secs_f64(seconds).map_or(longer, |seconds| seconds.min(longer)))
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
