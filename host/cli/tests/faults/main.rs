//! Everything goes wrong, by a seed: the process is killed at any border of states and inside requests; the mint, the
//! cluster, the disk, the way back and the clock fail. After each run every sat is accounted for: the ledger's audit holds,
//! and what the mint has signed is what the customers and the operator hold.
//!
//! `cargo test` makes a few runs; `cargo xtask faults` makes many. `FAULT_SEED` is the first seed, `FAULT_RUNS` how many,
//! `FAULT_MINT` a Nutshell mint's URL and `FAULT_MINT_DATABASE` its database.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::print_stdout, unreachable_pub, missing_docs)]

mod rooms;
mod story;

use paygress::house::{component, default_policies};
use paygress_cashu::mint::TestMint;
use paygress_policy::{Host, Machine, Source};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use story::{Story, tell};

/// Numbers by a seed (SplitMix64): the same seed is the same run.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    pub fn often(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }

    pub fn small(&mut self, below: u64) -> usize {
        usize::try_from(self.roll(below)).unwrap()
    }

    pub fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.roll(u64::try_from(all.len()).unwrap())).unwrap()].clone()
    }
}

/// The mint: cdk's in this process, or a Nutshell whose database is read.
pub enum AnyMint {
    Cdk(TestMint),
    Nutshell { url: String, database: PathBuf },
}

impl AnyMint {
    pub fn url(&self) -> &str {
        match self {
            Self::Cdk(mint) => mint.url(),
            Self::Nutshell { url, .. } => url,
        }
    }

    /// What it has signed and nobody has brought back, by its own books.
    pub async fn outstanding(&self) -> u64 {
        match self {
            Self::Cdk(mint) => mint.outstanding().await.unwrap(),
            Self::Nutshell { database, .. } => {
                let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
                let connection = rusqlite::Connection::open_with_flags(database, flags).unwrap();
                let sum = "SELECT (SELECT coalesce(sum(amount), 0) FROM promises WHERE c_ IS NOT NULL)
                     - (SELECT coalesce(sum(amount), 0) FROM proofs_used)";
                u64::try_from(connection.query_row(sum, [], |row| row.get::<_, i64>(0)).unwrap()).unwrap()
            }
        }
    }
}

/// What all runs share.
pub struct World {
    pub mint: AnyMint,
    pub policy: Arc<Host>,
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

#[test]
fn no_sat_is_lost_and_none_is_spent_twice() {
    // What happens, for who looks into a seed: FAULT_LOG=debug.
    if let Ok(filter) = std::env::var("FAULT_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let (first, runs) = (number("FAULT_SEED", 1), number("FAULT_RUNS", 24));
    let outside = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mint = outside.block_on(async {
        match (std::env::var("FAULT_MINT"), std::env::var("FAULT_MINT_DATABASE")) {
            (Ok(url), Ok(database)) => AnyMint::Nutshell { url, database: database.into() },
            _ => AnyMint::Cdk(TestMint::start(100).await.unwrap()),
        }
    });
    let source =
        |slot| Source { component: component(&default_policies().join(format!("{slot}.wasm"))).unwrap(), settings: "{}".to_owned() };
    let world = World { mint, policy: Host::load(Machine::start(None).unwrap(), source).unwrap() };
    // What earlier runs have left in wallets and purses.
    let mut kept = outside.block_on(world.mint.outstanding());
    let mut met: BTreeMap<String, usize> = BTreeMap::new();
    let mut longest = (Duration::ZERO, 0);
    for seed in first..first + runs {
        let begun = Instant::now();
        let story = Story::of(seed);
        let what = format!("{story:?}");
        match tell(&world, &outside, story, kept) {
            Ok(told) => {
                kept = told.outstanding;
                for fault in told.met {
                    *met.entry(fault).or_default() += 1;
                }
            }
            Err(why) => panic!("seed {seed}: {why}\n{what}"),
        }
        longest = longest.max((begun.elapsed(), seed));
        if begun.elapsed() > Duration::from_secs(10) {
            println!("seed {seed} took {:.0} s: {what}", begun.elapsed().as_secs_f64());
        }
    }
    println!("{runs} runs from seed {first}; the longest took {:.1} s (seed {})", longest.0.as_secs_f64(), longest.1);
    for (fault, times) in &met {
        println!("  {fault}: {times}");
    }
    println!("0 sats unaccounted for; the mint has {kept} sat outstanding");
}
