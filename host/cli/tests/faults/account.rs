//! Where the money is once nothing is wrong any more.

use crate::World;
use crate::scenario::{Outcome, SLOWEST, Scenario};
use crate::service::{App, Sent, TIMEOUT, TestEnv, act, customer, hand_in};
use paygress::audit::Report;
use paygress::commands::ledger::{all_orders, audited};
use paygress_core::backend::store::{LeaseStore, OrderStore};
use paygress_core::model::ids::{MintUrl, PodName};
use paygress_core::model::order::{Order, OrderState};
use paygress_core::model::units::set_clock_wrong;
use paygress_core::protocol::Response;
use paygress_sandbox::token::relabelled;
use paygress_store::SqlStore;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Nothing is wrong any more: everything comes to an end, and every sat is somewhere.
pub(crate) async fn account(
    world: &World,
    env: &TestEnv,
    scenario: &Scenario,
    mut sent: Vec<Sent>,
    kept: u64,
) -> Result<Outcome, String> {
    let app = env.app(world, None, Arc::default()).await;
    let watch = tokio::spawn(Arc::clone(&app.orders).watch());
    app.orders.resume().await.map_err(|error| error.to_string())?;
    let clock = tokio::spawn(pass_time(app.ledger.clone(), env.way.idle(), scenario.clock()));
    act(env, &app.orders, &scenario.actions, &mut sent).await;
    // A customer who got no answer sends the same message again.
    for (message, answer) in &mut sent {
        if answer.is_none() {
            *answer = hand_in(&app.orders, message).await;
        }
    }
    ended(env, &app).await?;
    clock.abort();
    watch.abort();
    let report = closed(&app).await?;
    let responses = env.responder.responses.lock().unwrap().clone();
    let responses: Vec<Response> = responses.into_iter().map(|(_, response)| response).collect();
    let refunds = taken_back(world, env, &app, &sent, &responses).await?;
    let all: Vec<String> = paid(&sent).chain(refunds.iter().cloned()).collect();
    let in_hand = unspent(env, &all).await?;
    let in_wallet_store = held(&app).await;
    let in_wallet = env.wallet.balance().await.map_err(|error| error.to_string())?;
    let outstanding = world.mint.outstanding().await;
    let found = kept + in_wallet_store + in_wallet + in_hand;
    if outstanding != found {
        return Err(format!(
            "the mint has {outstanding} sat outstanding; before were {kept}, the wallet store holds {in_wallet_store}, the customers' wallet {in_wallet} \
             and their hands {in_hand}: {} are lost\n{report}\n{:#?}",
            i128::from(outstanding) - i128::from(found),
            app.wallet.transactions().await.unwrap()
        ));
    }
    restorable(env, in_wallet_store + unspent(env, &refunds).await?).await?;
    let orders = all_orders(&app.ledger).await.map_err(|error| error.to_string())?;
    booked(&orders, in_wallet_store)?;
    Ok(Outcome { outstanding, met: Vec::new(), responses, orders })
}

/// What the wallet holds.
async fn held(app: &App) -> u64 {
    let balances = app.wallet.balances().await.unwrap();
    balances.iter().map(|balance| balance.available.0 + balance.reserved.0).sum()
}

/// What the orders have earned is what the wallet holds: the fees that the operator has borne are
/// losses.
fn booked(orders: &[Order], in_wallet_store: u64) -> Result<(), String> {
    let earned: i64 = orders.iter().map(|order| order.earned().0).sum();
    match i64::try_from(in_wallet_store) {
        Ok(held) if held == earned => Ok(()),
        _ => Err(format!("the orders have earned {earned} sat of {in_wallet_store}: {orders:#?}")),
    }
}

/// The clock goes on by as much as abandoned payments wait for, as soon as there is one.
async fn pass_time(ledger: SqlStore, mint_is_idle: impl Future<Output = ()>, clock: i64) {
    // What the last life has sent has left it by then…
    tokio::time::sleep(SLOWEST * 5).await;
    // …and is with the mint.
    mint_is_idle.await;
    loop {
        let unfinished = ledger.unfinished().await.unwrap_or_default();
        let is_abandoned = |order: &Order| {
            matches!(order.state, OrderState::PaymentUnknown { abandoned: Some(_), .. })
        };
        if unfinished.iter().any(is_abandoned) {
            return set_clock_wrong(clock + 1_000);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the orders have come to an end, and the leases are the pods.
async fn ended(env: &TestEnv, app: &App) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let failed = |error: paygress_core::backend::store::LedgerError| error.to_string();
        let (leases, pods) =
            (app.ledger.live_leases(None).await.map_err(failed)?.len(), env.cluster.running());
        let left = app.ledger.unfinished().await.map_err(failed)?;
        if left.is_empty() && leases == pods {
            return Ok(());
        }
        if begun.elapsed() > TIMEOUT {
            return Err(format!(
                "it does not come to an end: {leases} leases, {pods} pods, {left:#?}"
            ));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The ledger's audit, without problems, and nothing of it open.
async fn closed(app: &App) -> Result<Report, String> {
    let report = audited(&app.ledger, &app.wallet).await.map_err(|error| error.to_string())?;
    if !report.problems.is_empty() {
        return Err(format!("the audit fails: {report}"));
    }
    if report.total.in_doubt.0 + report.total.in_progress.0 + report.total.owed.0 != 0 {
        return Err(format!("something is still open: {report}"));
    }
    Ok(report)
}

/// The customers take back what is theirs: tokens that were refused, refunds that were answered or
/// are returned by a status request. Gives all refunds, redeemed or not.
async fn taken_back(
    world: &World,
    env: &TestEnv,
    app: &App,
    sent: &[Sent],
    responses: &[Response],
) -> Result<Vec<String>, String> {
    let mut refunds: Vec<String> = Vec::new();
    for answer in sent.iter().filter_map(|(_, answer)| answer.as_ref()).chain(responses) {
        refunds.extend(refund_tokens(answer));
        if let Some(pod) = pod_of(answer)
            && let Ok(status) = app.orders.status(&PodName::parse(pod).unwrap(), &customer(1)).await
        {
            refunds.extend(refund_tokens(&status.into()));
        }
    }
    refunds.sort();
    refunds.dedup();
    // (One of a sat is worth as much as redeeming it costs.)
    for refund in &refunds {
        let _ = env
            .wallet
            .receive(
                &relabelled(refund, world.mint.url(), "sat").map_err(|error| error.to_string())?,
            )
            .await;
    }
    Ok(refunds)
}

/// What these tokens are still worth.
async fn unspent(env: &TestEnv, tokens: &[String]) -> Result<u64, String> {
    env.wallet.unspent(tokens).await.map_err(|error| error.to_string())
}

/// The tokens that the customers have paid with.
fn paid(sent: &[Sent]) -> impl Iterator<Item = String> {
    sent.iter().filter_map(|(message, _)| Some(message.token.as_ref()?.expose().to_owned()))
}

/// The mnemonic alone finds on an empty disk what the wallet holds, and refunds that nobody has
/// redeemed.
async fn restorable(env: &TestEnv, of_seed: u64) -> Result<(), String> {
    let wallet = env.cashu_wallet("restored.sqlite").await;
    let mint = MintUrl::parse(env.way.url()).unwrap();
    let restored = wallet.restore(&mint).await.map_err(|error| error.to_string())?;
    if restored.0 == of_seed {
        return Ok(());
    }
    Err(format!("the mnemonic brings back {restored} of {of_seed}"))
}

/// All refund tokens that a response carries.
fn refund_tokens(response: &Response) -> Vec<String> {
    let (first, all) = match response {
        Response::Error(error) => {
            (error.refund.as_ref().and_then(|refund| refund.refund_token.clone()), Vec::new())
        }
        Response::Stopped(stopped) => {
            (stopped.refunds.refund_token.clone(), stopped.refunds.refund_tokens.clone())
        }
        Response::Status(status) => {
            (status.refund_token.clone(), status.refund_tokens.clone().unwrap_or_default())
        }
        Response::Access(_) | Response::ToppedUp(_) | Response::Notice(_) => (None, Vec::new()),
    };
    first.into_iter().chain(all).map(|token| token.expose().to_owned()).collect()
}

/// The pod that a response names.
fn pod_of(response: &Response) -> Option<String> {
    match response {
        Response::Access(access) => Some(access.pod_name.clone()),
        Response::ToppedUp(top_up) => Some(top_up.pod_name.clone()),
        Response::Stopped(stopped) => Some(stopped.pod_name.clone()),
        Response::Status(status) => Some(status.pod_name.clone()),
        Response::Notice(notice) => Some(notice.pod_name.clone()),
        Response::Error(error) => error.pod_name.clone(),
    }
}
