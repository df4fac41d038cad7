//! The vocabulary of events of a run, and the sinks that keep, count or write them.
//!
//! One table in `event` names every event, its fields and its line of text: Linux KVM's trace points by their own names, fields and order,
//! and a few events of ours (`trapline_*`, `vm_exit`, `exception`, ...). From that table come the canonical text and the NDJSON, which
//! hold the same content. This crate knows no machine: whoever emits an event hands over the names (`VMCALL`, `npf`) it carries.
//!
//! Not modelled: reading a trace back, and the formats of other tools (Perfetto, `trace.dat`).

mod event;
mod sink;
mod summary;
mod value;

pub use event::{Event, Kind, Record, VERSION};
pub use sink::{Format, Ignore, Sink, Tee, Transcript, TranscriptRecord, Writer};
pub use summary::{ExitStatistics, Summary, SummaryRecord};
pub use value::{ByteString, Name, exception_name};
