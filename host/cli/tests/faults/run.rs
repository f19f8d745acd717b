//! One run: lives with faults, then one in which nothing is wrong, and the account.

use crate::World;
use crate::account::account;
use crate::backends::{AtWrite, ClusterFault, ScriptedCluster};
use crate::scenario::{Outcome, ProcessRun, Scenario};
use crate::service::{Sent, TIMEOUT, TestEnv, act};
use paygress_core::model::units::set_clock_wrong;
use paygress_sandbox::{CodedAnswer, FaultProxy, NetworkFault, TestWallet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

/// How long a life with faults may take before it is ended.
const LIFE: Duration = Duration::from_secs(4);

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// One run with faults: until the process is killed, the actions are done, or it has taken long
/// enough.
fn live(
    world: &World,
    env: &TestEnv,
    scenario: &Scenario,
    run: &ProcessRun,
    sent: &mut Vec<Sent>,
    met: &mut Vec<String>,
) {
    let runtime = runtime();
    runtime.block_on(async {
        let killed = Arc::new(Notify::new());
        *env.cluster.fault.lock().unwrap() = run.cluster;
        *env.responder.failing.lock().unwrap() = run.responder;
        set_clock_wrong(run.clock);
        let app = env.app(world, Some(run), Arc::clone(&killed)).await;
        if let Some((path, fault, after, times)) = run.mint {
            env.way.plan(path, fault, after, times);
        }
        let watch = tokio::spawn(Arc::clone(&app.orders).watch());
        let work = async {
            let _ = app.orders.resume().await;
            act(env, &app.orders, &scenario.actions, sent).await;
            if run.lasts {
                std::future::pending::<()>().await;
            }
        };
        let hung = async {
            match run.mint {
                Some((_, NetworkFault::Hang(_), ..)) => env.way.hung().await,
                _ => std::future::pending().await,
            }
        };
        let end = tokio::select! {
            () = work => None,
            () = killed.notified() => Some(killed_at(run)),
            () = hung => Some(format!("killed in a request to the mint ({:?})", run.mint.unwrap().1)),
            () = tokio::time::sleep(LIFE) => Some("killed while waiting".to_owned()),
        };
        met.extend(end);
        watch.abort();
    });
    note_faults(env, run, met);
    // As sudden as a kill: what runs is dropped where it is.
    runtime.shutdown_background();
    env.way.clear();
}

fn killed_at(run: &ProcessRun) -> String {
    let before = run.write.unwrap().1 == AtWrite::KilledBefore;
    format!("killed {} a write", if before { "before" } else { "after" })
}

/// A kind of fault: of answers with any status and code there are too many to count each.
fn name(fault: NetworkFault) -> String {
    let NetworkFault::Coded(CodedAnswer { status, code, done }) = fault else {
        return format!("{fault:?}");
    };
    let code = if code.is_some() { "any code" } else { "no code" };
    format!("{}any {}xx with {code}", if done { "done, and " } else { "" }, status / 100)
}

/// What went wrong beside the process.
fn note_faults(env: &TestEnv, run: &ProcessRun, met: &mut Vec<String>) {
    if let Some((_, fault, ..)) = run.mint.filter(|_| env.way.met() > 0) {
        met.push(format!("mint: {}", name(fault)));
    }
    if run.cluster != ClusterFault::None {
        let name = format!("{:?}", run.cluster);
        met.push(format!("cluster: {}", name.split('(').next().unwrap()));
    }
    if run.clock != 0 {
        met.push("clock: jumped".to_owned());
    }
    if run.responder != 0 {
        met.push("responder: answer not accepted".to_owned());
    }
    if let Some((_, AtWrite::DiskFull(_))) = run.write {
        met.push("disk: full".to_owned());
    }
    if let Some((_, AtWrite::AnswerLost)) = run.write {
        met.push("ledger: answer lost".to_owned());
    }
}

/// Runs the scenario; `kept` is what was outstanding at the mint before it.
pub(crate) fn run_scenario(
    world: &World,
    outside: &Runtime,
    scenario: Scenario,
    kept: u64,
) -> Result<Outcome, String> {
    set_clock_wrong(0);
    let env = outside.block_on(async {
        let way = FaultProxy::to(world.mint.url()).await.unwrap();
        // The customers' own way to the mint is good.
        let wallet = TestWallet::new(world.mint.url()).await.unwrap();
        wallet.fill(400).await.unwrap();
        let directory = tempfile::Builder::new().prefix("faults").tempdir_in(fast()).unwrap();
        TestEnv {
            way,
            wallet,
            directory,
            cluster: Arc::new(ScriptedCluster::new()),
            responder: Arc::default(),
            capture: scenario.capture,
        }
    });
    let (mut sent, mut met) = (Vec::new(), vec![format!("capture: {:?}", scenario.capture)]);
    for run in &scenario.runs {
        live(world, &env, &scenario, run, &mut sent, &mut met);
    }
    *env.cluster.fault.lock().unwrap() = ClusterFault::None;
    *env.responder.failing.lock().unwrap() = 0;
    // The clock stays where the last life had it: time that has passed does not come back.
    let runtime = runtime();
    let outcome = runtime.block_on(async {
        let account = tokio::time::timeout(
            TIMEOUT.saturating_mul(2),
            account(world, &env, &scenario, sent, kept),
        );
        account.await.unwrap_or_else(|_| Err("a customer waits for ever".to_owned()))
    });
    runtime.shutdown_background();
    set_clock_wrong(0);
    outcome.map(|outcome| Outcome { met, ..outcome })
}

/// Where nothing waits for a disk: what is tested is the order of writes, not the disk.
fn fast() -> std::path::PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}
