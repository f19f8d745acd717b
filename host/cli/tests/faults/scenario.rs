//! What customers do, and what goes wrong meanwhile: by a seed, or as a test says.

use crate::SeededRng;
use crate::backends::{AtWrite, ClusterFault};
use paygress_core::model::order::Order;
use paygress_core::orders::Capture;
use paygress_core::protocol::Response;
use paygress_sandbox::{CodedAnswer, NetworkFault};
use std::time::Duration;

pub(crate) const DAY: i64 = 86_400;
/// By how much the mint does a request after its caller has given up.
pub(crate) const SLOWEST: Duration = Duration::from_millis(200);

/// Requests with this path, after so many good ones, fail in this way so many times.
type PlannedFault = (&'static str, NetworkFault, usize, usize);

/// What goes wrong in one life of the process.
#[derive(Clone, Debug)]
pub(crate) struct ProcessRun {
    pub(crate) write: Option<(usize, AtWrite)>,
    pub(crate) mint: Option<PlannedFault>,
    pub(crate) cluster: ClusterFault,
    pub(crate) responder: usize,
    pub(crate) clock: i64,
    /// Whether it goes on when the actions are done.
    pub(crate) lasts: bool,
}

/// What a customer does.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Buys a pod for so many sat.
    Spawn(u64),
    /// Sends the same token as the action before, from another key, at the same time.
    SameToken,
    /// Sends a part of the proofs of the action before.
    SomeProofs,
    /// Extends the first pod.
    TopUp(u64),
    /// Stops the first pod.
    Stop,
}

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) actions: Vec<Action>,
    pub(crate) runs: Vec<ProcessRun>,
    /// When the payments are taken.
    pub(crate) capture: Capture,
}

/// How it ended.
pub(crate) struct Outcome {
    pub(crate) outstanding: u64,
    pub(crate) met: Vec<String>,
    /// What was brought by the way back.
    pub(crate) responses: Vec<Response>,
    pub(crate) orders: Vec<Order>,
}

impl Scenario {
    pub(crate) fn of(seed: u64) -> Self {
        let mut rng = SeededRng::new(seed);
        let mut actions = vec![Action::Spawn(3 + rng.roll(60))];
        for _ in 0..rng.roll(4) {
            let amount = 3 + rng.roll(30);
            actions.push(rng.one_of(&[
                Action::Spawn(amount),
                Action::SameToken,
                Action::SomeProofs,
                Action::TopUp(amount),
                Action::Stop,
            ]));
        }
        let runs = (0..1 + rng.roll(2)).map(|_| ProcessRun::of(&mut rng)).collect();
        let capture = rng.one_of(&[Capture::BeforeLaunch, Capture::OnceReady]);
        Self { actions, runs, capture }
    }

    /// By how much the clock of the last life is wrong.
    pub(crate) fn clock(&self) -> i64 {
        self.runs.last().map_or(0, |run| run.clock)
    }
}

impl ProcessRun {
    /// A life in which nothing goes wrong.
    pub(crate) fn good() -> Self {
        Self {
            write: None,
            mint: None,
            cluster: ClusterFault::None,
            responder: 0,
            clock: 0,
            lasts: false,
        }
    }

    // The order of the numbers is what makes a seed the same run.
    fn of(rng: &mut SeededRng) -> Self {
        let (write, mint, cluster) = (write_fault(rng), mint_fault(rng), cluster_fault(rng));
        let responder = if rng.often(20) { 1 + rng.small(3) } else { 0 };
        let clock = if rng.often(10) {
            rng.one_of(&[-3_600, -60, 60, 600, 3_600, DAY, 40 * DAY])
        } else {
            0
        };
        let lasts = rng.often(20);
        Self { write, mint, cluster, responder, clock, lasts }
    }
}

fn write_fault(rng: &mut SeededRng) -> Option<(usize, AtWrite)> {
    let at = 1 + rng.small(24);
    match rng.roll(10) {
        0..=2 => Some((at, AtWrite::KilledBefore)),
        3..=5 => Some((at, AtWrite::KilledAfter)),
        6 => Some((at, AtWrite::DiskFull(1 + rng.small(4)))),
        7 => Some((at, AtWrite::AnswerLost)),
        _ => None,
    }
}

fn mint_fault(rng: &mut SeededRng) -> Option<PlannedFault> {
    let path = rng.one_of(&[
        "v1/swap",
        "v1/swap",
        "v1/swap",
        "v1/restore",
        "v1/checkstate",
        "v1/key",
        "v1/",
    ]);
    let mut faults = NetworkFault::ALL.to_vec();
    faults.extend([
        NetworkFault::Hang(false),
        NetworkFault::Hang(true),
        NetworkFault::Hang(true),
        NetworkFault::Late(SLOWEST),
    ]);
    let answers: Vec<_> = NetworkFault::answers().collect();
    let is_answer = rng.often(35);
    let fault = match is_answer {
        true if rng.often(50) => NetworkFault::Coded(coded_answer(rng)),
        true => rng.one_of(&answers),
        false => rng.one_of(&faults),
    };
    rng.often(80).then(|| {
        (
            path,
            fault,
            if rng.often(70) { 0 } else { rng.small(4) },
            if rng.often(20) { 10_000 } else { 1 + rng.small(4) },
        )
    })
}

/// Any status but those before a response (1xx), with a code of the NUTs' table, with any code or with
/// none.
fn coded_answer(rng: &mut SeededRng) -> CodedAnswer {
    let hundreds: u64 = rng.one_of(&[200, 300, 400, 400, 400, 500]);
    let table: u64 = rng.one_of(&[10_000, 11_000, 12_000, 20_000, 30_000, 31_000]);
    let status = u16::try_from(hundreds + rng.roll(100)).unwrap();
    let code = match rng.roll(4) {
        0 => None,
        1 => Some(rng.roll(1 << 32)),
        _ => Some(table + rng.roll(20)),
    };
    let code = code.map(|code| u32::try_from(code).unwrap());
    CodedAnswer { status, code, done: rng.often(50) }
}

fn cluster_fault(rng: &mut SeededRng) -> ClusterFault {
    let (after, times) = (rng.small(8), 1 + rng.small(2));
    let faults = [
        ClusterFault::Unavailable(after, times),
        ClusterFault::NeverReady,
        ClusterFault::PortTaken(1 + times),
        ClusterFault::Quota,
        ClusterFault::NodeLost,
    ];
    if rng.often(40) { rng.one_of(&faults) } else { ClusterFault::None }
}
