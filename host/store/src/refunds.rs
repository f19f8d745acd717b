use crate::db::Value;
use crate::orders::{find_order_by_id, find_orders, find_readable_orders};
use crate::ownership::conflict;
use crate::rows::{customer_text, write_order};
use crate::sql_store::{Result, SqlStore};
use async_trait::async_trait;
use paygress_core::backend::store::RefundStore;
use paygress_core::model::ids::{Customer, MintUrl, OrderId};
use paygress_core::model::order::{Order, State};
use paygress_core::model::units::Sat;

/// Matches orders of this mint by their JSON: a quote in any of its strings has a backslash before.
fn of_mint(mint: &MintUrl) -> String {
    let mut pattern = String::from("%\"mint\":\"");
    for character in mint.as_str().chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push_str("\"%");
    pattern
}

#[async_trait]
impl RefundStore for SqlStore {
    async fn pending_refunds(&self, of: Option<&Customer>) -> Result<Vec<Order>> {
        let of = of.cloned();
        self.database
            .transact(move |transaction| match &of {
                None => {
                    let all = "WHERE refund_token IS NOT NULL AND state = 'refunded'
                         ORDER BY created_at, id";
                    find_readable_orders(transaction, all, &[])
                }
                Some(customer) => {
                    let of_one = "WHERE customer = ?1
                         AND ((refund_token IS NOT NULL AND state = 'refunded')
                            OR state = 'refund-pending')
                         ORDER BY created_at, id";
                    find_readable_orders(transaction, of_one, &[customer_text(Some(customer))])
                }
            })
            .await
    }

    async fn close_refund(&self, order: &Order) -> Result<()> {
        let order = order.clone();
        self.database
            .transact(move |transaction| match find_order_by_id(transaction, &order.id)? {
                Some(stored) if stored.state.refund_token().is_some() => {
                    let closed = Order { delivered: stored.delivered, ..order.clone() };
                    write_order(transaction, &closed)
                }
                _ => Err(conflict(&order.id, State::Refunded)),
            })
            .await
    }

    async fn owed(&self, mint: &MintUrl, besides: Option<&OrderId>) -> Result<Sat> {
        // No order has an empty id.
        let values = [Value::from(besides.map_or("", OrderId::as_str)), of_mint(mint).into()];
        let mint = mint.clone();
        self.database
            .transact(move |transaction| {
                // A damaged one that names no mint may be of this one.
                let paid = "SELECT CAST(coalesce(sum(earned), 0) AS BIGINT) FROM orders
                     WHERE state IN ('paid', 'provisioning', 'active', 'refund-pending')
                        AND id <> ?1
                        AND (body LIKE ?2 ESCAPE '\\' OR body NOT LIKE '%\"mint\":\"%')";
                let paid = transaction.first(paid, &values)?;
                let paid = Sat(paid.map_or(Ok(0), |mut row| row.amount())?);
                // The wallet may have their tokens already.
                let unpaid = "WHERE state IN ('decided', 'redeeming', 'payment-unknown')";
                let unpaid = find_orders(transaction, unpaid, &[])?;
                let of_mint = unpaid.iter().filter(|order| order.token_info.mint == mint);
                Ok(of_mint.fold(paid, |sum, order| sum.plus(order.token_info.gross)))
            })
            .await
    }
}
