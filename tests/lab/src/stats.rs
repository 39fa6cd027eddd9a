//! Small statistics and what the machine spent.

use std::fs;

use crate::sys;

/// The value below which this share of the values lies; None of nothing.
pub fn percentile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted: Vec<f64> = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let rank = (share * sorted.len() as f64).ceil() as usize;
    Some(sorted[rank.saturating_sub(1).min(last)])
}

/// The middle value, or the mean of the two in the middle.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// Busy and total time of the whole machine so far, in ticks summed over its processors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MachineTime {
    busy: u64,
    total: u64,
}

impl MachineTime {
    /// Reads it now.
    pub fn now() -> MachineTime {
        fs::read_to_string("/proc/stat")
            .map(|text| MachineTime::parse(&text))
            .unwrap_or_default()
    }

    fn parse(text: &str) -> MachineTime {
        // user nice system idle iowait irq softirq steal; guest times are inside user and nice
        let fields: Vec<u64> = text
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .take(8)
            .filter_map(|field| field.parse().ok())
            .collect();
        let total = fields.iter().sum();
        let waiting = fields.iter().skip(3).take(2).sum::<u64>();
        MachineTime {
            busy: total - waiting,
            total,
        }
    }

    /// Share of the machine that was busy since `earlier`, 0 to 1.
    pub fn busy_share_since(&self, earlier: MachineTime) -> f64 {
        let total = self.total.saturating_sub(earlier.total);
        if total == 0 {
            return 0.0;
        }
        self.busy.saturating_sub(earlier.busy) as f64 / total as f64
    }
}

/// Processor seconds that a process has used so far, user and system, its threads included.
pub fn process_cpu_s(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything; fields are counted from behind it.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / sys::clock_ticks_per_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_medians_are_values_of_the_sample() {
        let values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!(median(&values), Some(3.0));
        assert_eq!(median(&values[..2]), Some(3.0));
        assert_eq!(percentile(&values, 0.95), Some(5.0));
        assert_eq!(percentile(&values, 0.2), Some(1.0));
        assert_eq!((median(&[]), percentile(&[], 0.5)), (None, None));
    }

    #[test]
    fn waiting_for_the_disk_is_not_busy() {
        let earlier = MachineTime::parse("cpu  100 0 100 700 100 0 0 0 0 0\n");
        let later = MachineTime::parse("cpu  150 0 150 800 200 0 0 0 0 0\n");
        assert!((later.busy_share_since(earlier) - 1.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn this_process_has_used_some_processor_time() {
        assert!(process_cpu_s(std::process::id()).is_some());
    }
}
