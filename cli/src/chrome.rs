//! A trace in the format of Chrome and Perfetto: what each step did when.
//!
//! # References
//!
//! [Trace Event
//! Format](https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU)

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use crate::output::Output;
use crate::replay::Record;

/// A trace that is being written.
#[derive(Debug)]
pub struct ChromeTrace {
    output: Output,
}

/// One event; times are in microseconds.
#[derive(Serialize)]
struct Event<'a, A> {
    name: &'a str,
    ph: &'a str,
    ts: f64,
    pid: u32,
    tid: u32,
    args: A,
}

#[derive(Serialize)]
struct StepArgs {
    step: u64,
    tokens: u32,
    requests: u32,
    bytes: u64,
}

#[derive(Serialize)]
struct MemoryArgs {
    device: u64,
    pinned: u64,
}

#[derive(Serialize)]
struct NameArgs {
    name: &'static str,
}

#[derive(Serialize)]
struct NoArgs {}

impl ChromeTrace {
    /// Begins a trace in `output`.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn new(mut output: Output) -> io::Result<Self> {
        write!(output, "[")?;
        let mut this = Self { output };
        this.event(true, "thread_name", "M", 0.0, NameArgs { name: "staging" })?;
        Ok(this)
    }

    /// Adds the step `number`.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn record(&mut self, number: u64, record: &Record) -> io::Result<()> {
        let Record { step, start, begin, write, submit, bytes, memory, .. } = *record;
        let args = StepArgs { step: number, tokens: step.tokens, requests: step.requests, bytes };
        self.event(false, "step", "B", microseconds(start), args)?;
        let mut now = start;
        for (name, took) in [("begin", begin), ("write", write), ("submit", submit)] {
            self.event(false, name, "B", microseconds(now), NoArgs {})?;
            now += took;
            self.event(false, name, "E", microseconds(now), NoArgs {})?;
        }
        self.event(false, "step", "E", microseconds(now), NoArgs {})?;
        let live = MemoryArgs { device: memory.device.live, pinned: memory.pinned.live };
        self.event(false, "live bytes", "C", microseconds(now), live)
    }

    /// Ends the trace and gives the file its name.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn keep(mut self) -> io::Result<()> {
        writeln!(self.output, "\n]")?;
        self.output.keep()
    }

    fn event(
        &mut self,
        first: bool,
        name: &str,
        ph: &str,
        ts: f64,
        args: impl Serialize,
    ) -> io::Result<()> {
        self.output.write_all(if first { b"\n" } else { b",\n" })?;
        let event = Event { name, ph, ts, pid: 1, tid: 1, args };
        serde_json::to_writer(&mut self.output, &event).map_err(io::Error::from)
    }
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
