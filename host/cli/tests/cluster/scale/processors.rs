//! Which programs use the processors of this machine: all of a cluster's share them here.

use rustix::param::clock_ticks_per_second;
use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

/// How many programs are printed, those first that have used most.
const PRINTED: usize = 8;

/// The times of the processors from a moment on.
pub(super) struct Processors {
    begun: Instant,
    before: BTreeMap<String, u64>,
}

impl Processors {
    pub(super) fn begin() -> Self {
        Self { begun: Instant::now(), before: ticks_of_programs() }
    }

    pub(super) fn print(&self, name: &str) {
        let second = clock_ticks_per_second();
        let used = |(program, ticks): (String, u64)| {
            let before = self.before.get(&program).copied().unwrap_or_default();
            (ticks.saturating_sub(before) / second, program)
        };
        let mut seconds: Vec<(u64, String)> =
            ticks_of_programs().into_iter().map(used).filter(|(seconds, _)| *seconds > 0).collect();
        seconds.sort_unstable_by(|first, second| second.cmp(first));
        let programs: Vec<String> = (seconds.iter().take(PRINTED))
            .map(|(seconds, program)| format!("{program} {seconds} s"))
            .collect();
        let took = self.begun.elapsed().as_secs();
        println!("{name}: processor time in {took} s: {}", programs.join(", "));
    }
}

/// Of all processes with the same name, in ticks of the kernel's clock.
fn ticks_of_programs() -> BTreeMap<String, u64> {
    let mut programs = BTreeMap::new();
    for process in fs::read_dir("/proc").unwrap() {
        // It may have ended.
        let Ok(stat) = fs::read_to_string(process.unwrap().path().join("stat")) else { continue };
        if let Some((program, ticks)) = ticks(&stat) {
            *programs.entry(program).or_default() += ticks;
        }
    }
    programs
}

/// The name and time of a process by its line in proc(5): its own and the kernel's for it.
fn ticks(stat: &str) -> Option<(String, u64)> {
    let (name, fields) = stat.rsplit_once(") ")?;
    let (_, name) = name.split_once('(')?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let [user, system] = [fields.get(11)?, fields.get(12)?].map(|field| field.parse::<u64>());
    Some((name.to_owned(), user.ok()? + system.ok()?))
}

#[test]
fn the_time_of_this_process_counts() {
    let (name, ticks) = ticks("1 (a name) x) R 0 1 1 0 -1 4 9 0 0 0 70 5 0 0 20").unwrap();
    assert_eq!((name.as_str(), ticks), ("a name) x", 75));
    let own = fs::read_to_string("/proc/self/comm").unwrap();
    assert!(ticks_of_programs().contains_key(own.trim_end()));
}
