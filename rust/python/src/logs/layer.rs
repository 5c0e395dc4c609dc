//! The layer of the tracing subscriber: it puts the lines that Python wants into the queue.

use std::{
    sync::atomic::{AtomicU8, Ordering},
    time::{Instant, SystemTime},
};

use tracing::{
    Event, Metadata, Subscriber, callsite,
    level_filters::LevelFilter,
    span::{Attributes, Id},
    subscriber::Interest,
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

use super::{
    line::{self, Line, SOURCES, Said, Value},
    repeats::Repeats,
};

/// The lowest level that each logger wants, as Python numbers the levels.
static THRESHOLDS: [AtomicU8; SOURCES] = [const { AtomicU8::new(u8::MAX) }; SOURCES];

/// Warnings of the layers below, which come several times a second while there is no network.
static REPEATS: Repeats<callsite::Identifier> = Repeats::new();

/// Sets the wanted levels. If they changed, every place that logs checks again whether it is
/// wanted.
pub(super) fn set_thresholds(thresholds: [u8; SOURCES]) {
    let mut changed = false;
    for (threshold, wanted) in THRESHOLDS.iter().zip(thresholds) {
        changed |= threshold.swap(wanted, Ordering::Relaxed) != wanted;
    }
    if changed {
        callsite::rebuild_interest_cache();
    }
}

/// Puts the lines that Python wants into the queue.
pub(super) struct PythonLayer {
    /// Queues a line. It must not wait.
    pub(super) put: fn(Line),
}

fn is_wanted(metadata: &Metadata<'_>) -> bool {
    let source = line::source(metadata.target());
    if metadata.is_span() {
        // Our spans name the node that logs. They must exist already when a level is lowered later.
        return source < SOURCES - 1;
    }
    line::level(*metadata.level()) >= THRESHOLDS[source].load(Ordering::Relaxed)
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for PythonLayer {
    // An unwanted line costs the check of one flag, because the answer is kept at the place that
    // logs.
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_wanted(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        is_wanted(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let lowest = THRESHOLDS.iter().map(|threshold| threshold.load(Ordering::Relaxed)).min();
        Some(match lowest {
            Some(..=5) => LevelFilter::TRACE,
            Some(..=10) => LevelFilter::DEBUG,
            // At least this level, because it is that of our spans.
            _ => LevelFilter::INFO,
        })
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut said = Said::default();
            attributes.record(&mut said);
            span.extensions_mut().insert(said);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut said = Said::default();
        let metadata = event.metadata();
        if line::source(metadata.target()) == SOURCES - 1
            && line::level(*metadata.level()) >= line::WARNING
        {
            let Some(left_out) = REPEATS.tell(metadata.callsite(), Instant::now()) else { return };
            if left_out > 0 {
                said.fields.push(("left_out", Value::Unsigned(left_out)));
            }
        }
        event.record(&mut said);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Said>() {
                let new = |name: &str, said: &Said| said.fields.iter().all(|(n, _)| *n != name);
                for (name, value) in &outer.fields {
                    if new(name, &said) {
                        said.fields.push((name, value.clone()));
                    }
                }
            }
        }
        (self.put)(Line { metadata: event.metadata(), at: SystemTime::now(), said });
    }
}
