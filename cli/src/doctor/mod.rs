//! Facts about this machine that decide whether wharf works, and how fast.

mod device;
mod host;

use crate::target::{Choice, Software, Target};

/// Something found out, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Fact {
    /// The verdict.
    pub verdict: Verdict,
    /// The topic.
    pub topic: &'static str,
    /// The finding.
    pub found: String,
    /// The remedy, if there is one.
    pub remedy: Option<String>,
}

/// The verdict on a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Works; something could be better, or is worth knowing.
    Note,
    /// Costs speed, or makes wharf take a slower way.
    Slow,
    /// wharf does not work like this.
    Broken,
}

impl Fact {
    fn good(topic: &'static str, found: impl Into<String>) -> Self {
        Self { verdict: Verdict::Good, topic, found: found.into(), remedy: None }
    }

    fn bad(
        verdict: Verdict,
        topic: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { verdict, topic, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// Looks at the host, at the driver that `choice` names and at its devices.
pub fn examine(choice: Choice) -> Vec<Fact> {
    let mut facts = device::facts(Target::new(choice, Software::default()));
    facts.extend(host::facts());
    facts
}

/// `bytes` for people, in binary units.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let unit = (bytes.max(1).ilog2() / 10).min(4);
    let whole = bytes >> (10 * unit);
    // Of the rest, which has room for a digit more.
    let tenths = ((bytes - (whole << (10 * unit))) * 10) >> (10 * unit);
    if tenths == 0 {
        format!("{whole} {}", UNITS[unit as usize])
    } else {
        format!("{whole}.{tenths} {}", UNITS[unit as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_down_to_a_tenth() {
        assert_eq!(
            [0, 1023, 1024, 65_536, 1536].map(size),
            ["0 bytes", "1023 bytes", "1 KiB", "64 KiB", "1.5 KiB"]
        );
        assert_eq!(size(u64::from(u32::MAX)), "3.9 GiB");
        assert_eq!(size(u64::MAX), "16777215.9 TiB");
    }
}
