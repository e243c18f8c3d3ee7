//! A snapshot in lines.

use std::fmt;

use super::snapshot::{BlockEntry, SlabEntry, Snapshot};
use crate::memory::PhysicalMemory;

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            kind,
            base,
            span,
            limit,
            reserved,
            live,
            cached,
            retired,
            waste,
            unused,
            lost,
            physical,
            ..
        } = self;
        write!(f, "pool {name:?}: {kind} memory")?;
        self.ordinal.map_or(Ok(()), |ordinal| write!(f, " of device {ordinal}"))?;
        writeln!(f, ", span of {span} bytes at {base:#x}")?;
        writeln!(
            f,
            "limit {limit}, reserved {reserved}, live {live}, retired {retired}, cached {cached}, \
             waste {waste}, unused {unused}, lost {lost}"
        )?;
        if self.asleep > 0 {
            writeln!(f, "asleep: {} bytes have no memory behind them", self.asleep)?;
        }
        if let Some(PhysicalMemory { free, total, .. }) = physical {
            let others = self.used_by_others().unwrap_or(0);
            writeln!(f, "memory: {free} of {total} bytes free, {others} used by others")?;
        }
        self.slabs.iter().try_for_each(|slab| writeln!(f, "{slab}"))?;
        self.blocks.iter().try_for_each(|block| writeln!(f, "{block}"))
    }
}

impl fmt::Display for SlabEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, size, block_size, blocks, free } = self;
        write!(
            f,
            "  slab  {address:#x} {size:>10} bytes: {blocks} blocks of {block_size}, {free} free"
        )
    }
}

impl fmt::Display for BlockEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, size, asked, state, generation, .. } = self;
        write!(
            f,
            "  block {address:#x} {size:>10} bytes: {asked} asked for, {state}, life {generation}"
        )?;
        for of in &self.streams {
            let how = if of.complete { "done" } else { "pending" };
            write!(f, ", stream {:#x} {how}", of.stream)?;
        }
        if let Some(site) = &self.site {
            write!(f, ", from {site}")?;
        }
        self.age_nanoseconds.map_or(Ok(()), |age| write!(f, ", {:.3} s old", to_seconds(age)))
    }
}

fn to_seconds(nanoseconds: u64) -> f64 {
    std::time::Duration::from_nanos(nanoseconds).as_secs_f64()
}
