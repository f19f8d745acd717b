//! The audit: for every order, what was received, and what the operator has added to it for fees,
//! equals what was sold, refunded, kept by the mint, or held for a stated reason; and the wallet's
//! transactions agree.

use paygress_cashu::{MintBalance, OperationState, Purpose, Transaction};
use paygress_core::model::ids::{MintUrl, OrderId};
use paygress_core::model::order::{Order, OrderState, RefundEnd, State};
use paygress_core::model::order_state::{Refund, RefundCause};
use paygress_core::model::units::Sat;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

/// Where the sats of one order, or of all, are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breakdown {
    /// The value of the tokens.
    pub gross: Sat,
    /// The mints' fees that the operator has borne: refunds were over so much more, or cost it.
    pub borne: Sat,
    /// The mints' fees for receiving them.
    pub fees: Sat,
    /// For time that was delivered, or is being delivered.
    pub sold: Sat,
    pub refunded: Sat,
    /// The mints' fees for making the refunds.
    pub refund_fees: Sat,
    /// To be refunded.
    pub owed: Sat,
    /// Paid, and not yet delivered.
    pub in_progress: Sat,
    /// It is not known yet whether the mint has swapped the token.
    pub in_doubt: Sat,
    /// Of what was refunded: reclaimed, since it was not redeemed.
    pub reclaimed: Sat,
}

impl Breakdown {
    fn add(&mut self, other: &Self) {
        for (sum, part) in [
            (&mut self.gross, other.gross),
            (&mut self.borne, other.borne),
            (&mut self.fees, other.fees),
            (&mut self.sold, other.sold),
            (&mut self.refunded, other.refunded),
            (&mut self.refund_fees, other.refund_fees),
            (&mut self.owed, other.owed),
            (&mut self.in_progress, other.in_progress),
            (&mut self.in_doubt, other.in_doubt),
            (&mut self.reclaimed, other.reclaimed),
        ] {
            *sum = sum.plus(part);
        }
    }

    fn accounted(&self) -> Sat {
        [
            self.fees,
            self.sold,
            self.refunded,
            self.refund_fees,
            self.owed,
            self.in_progress,
            self.in_doubt,
        ]
        .into_iter()
        .fold(Sat(0), Sat::plus)
    }
}

#[derive(Debug, Default)]
pub struct Report {
    pub orders: usize,
    pub total: Breakdown,
    pub balances: BTreeMap<MintUrl, Sat>,
    /// What the operator sent or paid.
    pub withdrawn: Sat,
    /// What the mints and Lightning kept for that, and for swaps of proofs whose keyset ends.
    pub withdrawal_fees: Sat,
    /// What does not add up, one a line; each names its order or mint.
    pub problems: Vec<String>,
}

/// The wallet's transactions that have ended, by what they were for.
type ByPurpose<'a> = HashMap<&'a Purpose, &'a Transaction>;

/// Compares the ledger with the wallet.
#[must_use]
pub fn audit(orders: &[Order], transactions: &[Transaction], balances: &[MintBalance]) -> Report {
    let mut report = Report { orders: orders.len(), ..Report::default() };
    let ended: Vec<&Transaction> = transactions
        .iter()
        .filter(|transaction| transaction.state != OperationState::Open)
        .collect();
    let by_purpose: ByPurpose<'_> =
        ended.iter().map(|transaction| (&transaction.purpose, *transaction)).collect();
    for order in orders {
        audit_order(order, &by_purpose, &mut report);
    }
    find_orphans(orders, &by_purpose, &mut report);
    for transaction in &ended {
        let own = &transaction.purpose;
        if matches!(own, Purpose::Send { .. } | Purpose::Melt { .. } | Purpose::Rotate { .. }) {
            report.withdrawn = report.withdrawn.plus(transaction.sent);
            report.withdrawal_fees = report.withdrawal_fees.plus(transaction.fee);
        }
    }
    audit_balances(&ended, balances, &mut report);
    report
}

fn audit_order(order: &Order, by_purpose: &ByPurpose<'_>, report: &mut Report) {
    let mut problems = Vec::new();
    let breakdown = break_down(order, by_purpose, &mut problems);
    let received = breakdown.gross.plus(breakdown.borne);
    if received != breakdown.accounted() {
        problems.push(format!(
            "{received} were received and {} are accounted for",
            breakdown.accounted()
        ));
    }
    report.total.add(&breakdown);
    let problems = problems.into_iter().map(|problem| format!("order {}: {problem}", order.id));
    report.problems.extend(problems);
}

/// Tokens that the wallet has received for orders that the ledger does not have.
fn find_orphans(orders: &[Order], by_purpose: &ByPurpose<'_>, report: &mut Report) {
    let known: HashSet<&OrderId> = orders.iter().map(|order| &order.id).collect();
    for (purpose, transaction) in by_purpose {
        if let Purpose::Receive { order } = purpose
            && !known.contains(order)
        {
            report.problems.push(format!(
                "wallet has received {} for order {order}, which does not exist",
                transaction.received
            ));
        }
    }
}

/// A mint's balance is what its transactions add up to.
fn audit_balances(ended: &[&Transaction], balances: &[MintBalance], report: &mut Report) {
    let mut booked: BTreeMap<&MintUrl, i64> = BTreeMap::new();
    for transaction in ended {
        let sum = booked.entry(&transaction.mint).or_default();
        *sum = sum.saturating_add(transaction.delta);
    }
    for balance in balances {
        let held = balance.available.plus(balance.reserved);
        let booked = booked.get(&balance.mint).copied().unwrap_or(0);
        if i64::try_from(held.0) != Ok(booked) {
            report.problems.push(format!(
                "mint {}: wallet holds {held}, and its transactions add up to {booked} sat",
                balance.mint
            ));
        }
        report.balances.insert(balance.mint.clone(), held);
    }
}

fn break_down(order: &Order, by_purpose: &ByPurpose<'_>, problems: &mut Vec<String>) -> Breakdown {
    let receipt = by_purpose.get(&Purpose::Receive { order: order.id.clone() });
    let Some(redeemed) = order.state.redeemed() else {
        return match order.state() {
            State::Redeeming | State::PaymentUnknown => Breakdown {
                gross: order.token_info.gross,
                in_doubt: order.token_info.gross,
                ..Breakdown::default()
            },
            state => {
                if let Some(receipt) = receipt {
                    problems.push(format!(
                        "order is {}, and the wallet has received {}",
                        state.as_str(),
                        receipt.received
                    ));
                }
                Breakdown::default()
            }
        };
    };
    let received = receipt.map(|receipt| receipt.received);
    if received != Some(redeemed) {
        problems.push(format!(
            "ledger has {redeemed} received, and the wallet {}",
            received.unwrap_or_default()
        ));
    }
    let paid = Breakdown {
        gross: order.token_info.gross,
        fees: order.token_info.gross.minus(redeemed),
        ..Breakdown::default()
    };
    let due = order.state.refund_due().unwrap_or_default();
    match &order.state {
        OrderState::Active { .. } | OrderState::Ended { .. } => {
            Breakdown { sold: redeemed, ..paid }
        }
        OrderState::RefundPending { .. } => {
            Breakdown { owed: due, sold: redeemed.minus(due), ..paid }
        }
        OrderState::Refunded { refund, cause, .. } => {
            let (sold, borne) = (redeemed.minus(due), borne(refund, cause, due, problems));
            let paid = Breakdown { sold, borne, ..paid };
            break_down_refund(&order.id, refund, paid, by_purpose, problems)
        }
        _ => Breakdown { in_progress: redeemed, ..paid },
    }
}

/// What the operator has borne. More than was due is what they add: all of it, or nothing.
fn borne(refund: &Refund, cause: &RefundCause, due: Sat, problems: &mut Vec<String>) -> Sat {
    let added = refund.amount.plus(refund.fee).minus(due);
    if added != Sat(0) && cause.added() != Some(added) {
        problems.push(format!("{due} were due, and {added} more were refunded"));
    }
    added.plus(refund.fee_borne)
}

fn break_down_refund(
    order: &OrderId,
    refund: &Refund,
    paid: Breakdown,
    by_purpose: &ByPurpose<'_>,
    problems: &mut Vec<String>,
) -> Breakdown {
    let refunded = refund.amount;
    let refund_fees = refund.fee.plus(refund.fee_borne);
    let made = by_purpose.get(&Purpose::Refund { order: order.clone() });
    let sent = made.map(|made| made.sent);
    if sent != Some(refunded) {
        problems.push(format!(
            "ledger has {refunded} refunded, and the wallet {}",
            sent.unwrap_or_default()
        ));
    }
    // An earlier version did not record the fee for an amount that was made whole.
    if let Some(made) = made.filter(|made| refund_fees != Sat(0) && made.fee != refund_fees) {
        problems.push(format!(
            "ledger has {refund_fees} as the fee of its refund, and the wallet {}",
            made.fee
        ));
    }
    let reclaimed = match refund.end() {
        Some(RefundEnd::Reclaimed(net)) => net,
        _ => Sat(0),
    };
    let reclaim = by_purpose.get(&Purpose::Reclaim { order: order.clone() });
    if reclaimed != Sat(0) && reclaim.is_none_or(|reclaim| reclaim.received != reclaimed) {
        problems.push(format!("ledger has {reclaimed} reclaimed, and the wallet does not"));
    }
    Breakdown { refunded, refund_fees, reclaimed, ..paid }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = &self.total;
        writeln!(f, "{} orders", self.orders)?;
        writeln!(f, "{:<36} {:>14}", "received, before fees", total.gross.to_string())?;
        if total.borne != Sat(0) {
            let label = "and fees that the operator bears";
            writeln!(f, "{label:<36} {:>14}", total.borne.to_string())?;
        }
        for (label, amount) in [
            ("  mints' fees for receiving", total.fees),
            ("  sold", total.sold),
            ("  refunded", total.refunded),
            ("  mints' fees for refunds", total.refund_fees),
            ("  to be refunded", total.owed),
            ("  paid, being delivered", total.in_progress),
            ("  in doubt at a mint", total.in_doubt),
            ("of the refunds: reclaimed", total.reclaimed),
            ("withdrawn by the operator", self.withdrawn),
            ("  fees of mints and Lightning", self.withdrawal_fees),
        ] {
            writeln!(f, "{label:<36} {:>14}", amount.to_string())?;
        }
        for (mint, held) in &self.balances {
            writeln!(f, "held at {mint:<28} {:>14}", held.to_string())?;
        }
        match self.problems.as_slice() {
            [] => write!(f, "every sat is accounted for"),
            problems => write!(f, "{} PROBLEM(S)\n  {}", problems.len(), problems.join("\n  ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_core::model::secret::Secret;
    use paygress_core::model::token::RefundToken;
    use paygress_core::model::units::UnixTime;
    use paygress_core::testing;

    fn transaction(purpose: &str, received: u64) -> Transaction {
        Transaction {
            purpose: purpose.parse().unwrap(),
            mint: MintUrl::parse("https://mint.example").unwrap(),
            at: UnixTime(0),
            state: OperationState::Done,
            received: Sat(received),
            sent: Sat(0),
            fee: Sat(0),
            delta: i64::try_from(received).unwrap(),
        }
    }

    fn balance(available: u64) -> MintBalance {
        let mint = MintUrl::parse("https://mint.example").unwrap();
        MintBalance { mint, available: Sat(available), reserved: Sat(0) }
    }

    #[test]
    fn a_received_token_without_an_order_is_a_problem() {
        let transactions = [transaction("receive 00ff00ff00ff00ff", 7), transaction("restore", 3)];
        let report = audit(&[], &transactions, &[balance(10)]);
        assert_eq!(
            report.problems,
            ["wallet has received 7 sat for order 00ff00ff00ff00ff, which does not exist"]
        );
    }

    #[test]
    fn a_balance_that_the_transactions_do_not_explain_is_a_problem() {
        let report = audit(&[], &[transaction("restore", 3)], &[balance(4)]);
        let problem =
            "mint https://mint.example: wallet holds 4 sat, and its transactions add up to 3 sat";
        assert_eq!(report.problems, [problem]);
        assert!(audit(&[], &[transaction("restore", 3)], &[balance(3)]).problems.is_empty());
    }

    #[test]
    fn the_fee_for_swapping_proofs_whose_keyset_ends_is_the_operators() {
        let mut rotated = transaction("rotate 00ff00ff00ff00ff", 9);
        (rotated.fee, rotated.delta) = (Sat(1), -1);
        let report = audit(&[], &[transaction("restore", 10), rotated], &[balance(9)]);
        assert_eq!(report.problems, Vec::<String>::new());
        assert_eq!((report.withdrawn, report.withdrawal_fees), (Sat(0), Sat(1)));
    }

    /// The audit of an order of 12 sat, of which the mint has left 10, with a refund token of this
    /// amount and fee.
    fn audit_refund(added: Option<u64>, amount: u64, fee: u64) -> Report {
        let mut order = testing::order(testing::spawn(), State::Refunded).unwrap();
        order.token_info.gross = Sat(12);
        let OrderState::Refunded { cause, refund, .. } = &mut order.state else { panic!() };
        let token = Secret::new("cashuBx");
        *refund = Refund::made(RefundToken { token, amount: Sat(amount), fee: Sat(fee) }, Sat(10));
        let RefundCause::NotProvisioned { added: bears, .. } = cause else { panic!() };
        *bears = added.map(Sat);
        let mut made = transaction(&format!("refund {}", order.id), 0);
        (made.sent, made.fee) = (Sat(amount), Sat(fee));
        made.delta = 0_i64.saturating_sub_unsigned(amount).saturating_sub_unsigned(fee);
        let transactions =
            [transaction("restore", 50), transaction(&format!("receive {}", order.id), 10), made];
        let held = order.earned().plus(Sat(50)).0;
        audit(&[order], &transactions, &[balance(u64::try_from(held).unwrap())])
    }

    #[test]
    fn what_the_operator_bears_is_accounted_for() {
        for (added, amount, fee, borne) in [
            (None, 10, 0, 0),
            (None, 9, 1, 0),
            (None, 10, 1, 1),
            (Some(2), 12, 1, 3),
            (Some(2), 12, 0, 2),
            // The wallet did not hold more.
            (Some(2), 9, 1, 0),
        ] {
            let report = audit_refund(added, amount, fee);
            assert_eq!(report.problems, Vec::<String>::new(), "{added:?}: {amount} for {fee}");
            let total = report.total;
            assert_eq!((total.borne, total.refunded), (Sat(borne), Sat(amount)));
            assert_eq!((total.fees, total.refund_fees, total.sold), (Sat(2), Sat(fee), Sat(0)));
        }
        for (added, amount) in [(None, 12), (Some(2), 13), (Some(2), 11)] {
            let report = audit_refund(added, amount, 0);
            assert!(report.problems[0].contains("10 sat were due, and "), "{:?}", report.problems);
        }
    }
}
