//! The audit: for every order, what came in is what was sold, paid back, kept by the mint, or kept
//! for a stated reason; and the purse says the same.

use paygress_cashu::{Entry, MintBalance};
use paygress_core::model::order::{Order, RefundEnd, State};
use paygress_core::model::units::{MintUrl, Sat};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// Where the sats of one order, or of all, are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// The tokens' worth.
    pub taken: Sat,
    /// What the mints kept of it when they were swapped.
    pub fees: Sat,
    /// Time that was delivered, or is being.
    pub sold: Sat,
    /// Given back.
    pub refunded: Sat,
    /// What the mints kept for making that.
    pub refund_fees: Sat,
    /// Must be given back, and is not yet.
    pub owed: Sat,
    /// Paid, and not yet delivered.
    pub in_work: Sat,
    /// The mint has not told whether it took it.
    pub in_question: Sat,
    /// Of what was refunded: taken back, since nobody redeemed it.
    pub taken_back: Sat,
}

impl Parts {
    fn add(&mut self, other: &Self) {
        for (sum, part) in [
            (&mut self.taken, other.taken),
            (&mut self.fees, other.fees),
            (&mut self.sold, other.sold),
            (&mut self.refunded, other.refunded),
            (&mut self.refund_fees, other.refund_fees),
            (&mut self.owed, other.owed),
            (&mut self.in_work, other.in_work),
            (&mut self.in_question, other.in_question),
            (&mut self.taken_back, other.taken_back),
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
            self.in_work,
            self.in_question,
        ]
        .into_iter()
        .fold(Sat(0), Sat::plus)
    }
}

/// What an audit found.
#[derive(Debug, Default)]
pub struct Report {
    /// How many orders there are.
    pub orders: usize,
    /// All of them together.
    pub total: Parts,
    /// What the purse holds at each mint.
    pub balances: BTreeMap<MintUrl, Sat>,
    /// What the operator took out.
    pub withdrawn: Sat,
    /// What the mints and Lightning kept for that.
    pub withdrawal_fees: Sat,
    /// What does not add up, one a line, each naming its order or mint.
    pub problems: Vec<String>,
}

/// Compares the ledger with the purse.
#[must_use]
pub fn audit(orders: &[Order], entries: &[Entry], balances: &[MintBalance]) -> Report {
    let mut report = Report { orders: orders.len(), ..Report::default() };
    let by_purpose: HashMap<&str, &Entry> = entries
        .iter()
        .filter(|entry| !entry.open)
        .map(|entry| (entry.purpose.as_str(), entry))
        .collect();
    let mut receipts: HashMap<String, &Entry> = by_purpose
        .iter()
        .filter(|(purpose, _)| purpose.starts_with("receive "))
        .map(|(purpose, entry)| ((*purpose).to_owned(), *entry))
        .collect();
    for order in orders {
        let mut problems = Vec::new();
        let parts = parts(order, &by_purpose, &mut problems);
        receipts.remove(&format!("receive {}", order.id));
        if parts.taken != parts.accounted() {
            problems.push(format!(
                "{} came in and {} are accounted for",
                parts.taken,
                parts.accounted()
            ));
        }
        report.total.add(&parts);
        report
            .problems
            .extend(problems.into_iter().map(|problem| format!("order {}: {problem}", order.id)));
    }
    for (purpose, entry) in receipts {
        report.problems.push(format!(
            "the purse has {} of `{purpose}`, and there is no such order",
            entry.got
        ));
    }
    for entry in entries.iter().filter(|entry| {
        !entry.open && (entry.purpose.starts_with("send ") || entry.purpose.starts_with("pay "))
    }) {
        report.withdrawn = report.withdrawn.plus(entry.gave);
        report.withdrawal_fees = report.withdrawal_fees.plus(entry.fee);
    }
    let mut booked: BTreeMap<&MintUrl, i64> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| !entry.open) {
        let sum = booked.entry(&entry.mint).or_default();
        *sum = sum.saturating_add(entry.delta);
    }
    for holding in balances {
        let (held, booked) =
            (holding.free.plus(holding.held), booked.get(&holding.mint).copied().unwrap_or(0));
        if i64::try_from(held.0) != Ok(booked) {
            report.problems.push(format!(
                "mint {}: the purse holds {held}, and its operations make {booked} sat",
                holding.mint
            ));
        }
        report.balances.insert(holding.mint.clone(), held);
    }
    report
}

fn parts(order: &Order, wallet_store: &HashMap<&str, &Entry>, problems: &mut Vec<String>) -> Parts {
    let entry = |what: &str| wallet_store.get(format!("{what} {}", order.id).as_str()).copied();
    let Some(redeemed) = order.redeemed else {
        return match order.state {
            State::Redeeming | State::PaymentUnknown => Parts {
                taken: order.token_info.gross,
                in_question: order.token_info.gross,
                ..Parts::default()
            },
            state => {
                if let Some(receipt) = entry("receive") {
                    problems.push(format!(
                        "it is {}, and the purse has received {}",
                        state.as_str(),
                        receipt.got
                    ));
                }
                Parts::default()
            }
        };
    };
    if entry("receive").is_none_or(|receipt| receipt.got != redeemed) {
        let got = entry("receive").map(|receipt| receipt.got).unwrap_or_default();
        problems
            .push(format!("the ledger says that {redeemed} were redeemed, and the purse {got}"));
    }
    let due = order.due.unwrap_or(redeemed);
    let taken = Parts {
        taken: order.token_info.gross,
        fees: order.token_info.gross.minus(redeemed),
        ..Parts::default()
    };
    match order.state {
        State::Active | State::Ended => Parts { sold: redeemed, ..taken },
        State::RefundPending => Parts { owed: due, sold: redeemed.minus(due), ..taken },
        State::Refunded => {
            let (refunded, refund_fees) =
                (order.refunded.unwrap_or_default(), order.refund_fee.unwrap_or_default());
            if entry("refund").is_none_or(|refund| refund.gave != refunded) {
                let gave = entry("refund").map(|refund| refund.gave).unwrap_or_default();
                problems.push(format!(
                    "the ledger says that {refunded} were paid back, and the purse {gave}"
                ));
            }
            let taken_back = match order.refund_end {
                Some(RefundEnd::Reclaimed(back)) => back,
                _ => Sat(0),
            };
            if taken_back != Sat(0) && entry("sweep").is_none_or(|sweep| sweep.got != taken_back) {
                problems.push(format!(
                    "{taken_back} of its refund were taken back, and the purse does not have them"
                ));
            }
            Parts { refunded, refund_fees, taken_back, sold: redeemed.minus(due), ..taken }
        }
        _ => Parts { in_work: redeemed, ..taken },
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = &self.total;
        writeln!(f, "{} orders", self.orders)?;
        for (what, amount) in [
            ("taken in", total.taken),
            ("  kept by mints on the way in", total.fees),
            ("  sold", total.sold),
            ("  paid back", total.refunded),
            ("  kept by mints on the way back", total.refund_fees),
            ("  to be paid back", total.owed),
            ("  paid, being delivered", total.in_work),
            ("  at a mint that has not told yet", total.in_question),
            ("of what was paid back: taken back", total.taken_back),
            ("withdrawn by the operator", self.withdrawn),
            ("  kept by mints and Lightning", self.withdrawal_fees),
        ] {
            writeln!(f, "{what:<36} {:>14}", amount.to_string())?;
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
