//! What any store must do, trait by trait. Every case runs on both databases, each time in an empty
//! one.
#![cfg(test)]
#![allow(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

mod damaged;
mod history;
mod leases;
mod load;
mod messages;
mod migrations;
mod orders;
mod ports;
mod postgres;
mod refunds;
mod reporting;
mod rolling_update;
mod sqlite;
mod support;
mod version_0_1_0;

/// A test for each case and database. A case is a function that takes the store.
macro_rules! suite {
    ($($area:ident { $($case:ident,)+ })+) => {
        mod on_sqlite {
            $(mod $area {
                $(#[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    let (store, _directory) = crate::support::sqlite().await;
                    crate::$area::$case(store).await;
                })+
            })+
        }
        mod on_postgres {
            $(mod $area {
                $(#[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    let (store, _server) = crate::support::postgres().await;
                    crate::$area::$case(store).await;
                })+
            })+
        }
    };
}

suite! {
    orders {
        a_proof_pays_for_one_order_until_a_refusal_releases_it,
        a_message_makes_one_order,
        a_transition_needs_the_state_that_was_seen,
        a_top_up_is_found_by_its_lease_from_its_decision_on,
        the_order_of_a_pod_is_found_among_those_that_extend_it,
        what_is_written_is_read_and_secrets_are_not_serialised,
        unfinished_orders_need_work_or_a_response,
        a_refused_request_may_be_repeated_under_a_chosen_id,
        a_refused_message_may_not_be_repeated,
        of_orders_at_the_same_time_one_gets_the_proof,
    }
    history {
        a_customer_without_orders_has_an_empty_history,
        orders_at_the_same_time_count_for_each_other,
        whom_a_payer_names_has_no_order_before_it_is_paid_for,
        what_comes_to_nothing_does_not_count,
        what_was_refunded_of_an_order_does_not_count,
        the_sums_are_those_of_the_last_day,
        no_more_than_so_many_orders_are_counted,
        orders_of_others_do_not_count,
    }
    leases {
        extensions_at_the_same_time_add_up,
        an_extension_can_be_taken_back,
        an_ended_lease_is_not_extended,
        what_needs_a_lease_is_not_active_after_its_end,
        live_leases_are_listed_by_customer,
        a_decision_depends_on_what_is_reserved_and_on_the_customers_other_leases,
        a_lease_is_found_by_the_key_of_its_pod,
        the_reason_of_an_end_is_recorded_before_it,
        until_when_a_lost_pod_was_served_is_recorded_once,
        a_notice_is_recorded_once_for_each_end,
        what_is_known_of_a_pod_is_replaced_as_long_as_its_lease_lives,
        an_answer_about_a_pod_counts_until_another_is_recorded,
        host_keys_that_a_pod_has_proved_are_those_of_no_other,
        a_lease_without_a_uid_has_it_recorded_and_keeps_its_host_keys,
        an_end_needs_all_active_orders,
        an_end_releases_the_port_and_writes_the_orders,
    }
    ports {
        a_lease_keeps_its_port,
        a_lease_keeps_a_port_that_is_no_longer_in_the_range,
        a_port_belongs_to_one_lease,
        a_lease_is_given_another_port_if_there_is_one,
        the_last_port_can_be_reserved,
        leases_at_the_same_time_get_a_port_each,
        leases_at_the_same_time_reserve_what_there_is,
        what_is_reserved_uncounted_is_recorded,
        nothing_is_reserved_for_a_lease_without_a_port,
        leases_without_a_port_are_counted_with_the_others,
        leases_at_the_same_time_get_no_more_places_than_there_are,
        a_port_is_released_with_the_end_of_its_order,
        ports_that_nobody_has_or_will_have_are_released,
    }
    refunds {
        a_refund_is_pending_until_it_is_closed,
        a_customer_sees_the_refund_that_is_being_made,
        a_refund_is_closed_once,
        what_may_have_to_go_back_at_a_mint_is_known,
    }
    reporting {
        revenue_is_net_and_by_the_hour,
        what_the_operator_bears_is_a_loss,
        orders_are_counted_by_state,
        pods_are_counted_in_each_hour_that_they_ran,
        a_lease_that_ended_early_is_not_counted_until_its_end,
        leases_are_paged_newest_first,
        what_the_operator_sells_is_stored,
        pages_hold_every_order_once_oldest_first,
        refused_orders_are_forgotten_once_their_response_is_delivered,
        a_refused_top_up_does_not_take_the_lease_with_it,
        the_newest_refused_orders_are_kept_whole_and_the_oldest_forgotten,
    }
    messages {
        a_message_is_claimed_until_it_is_completed,
        old_messages_are_forgotten,
        of_too_many_messages_the_oldest_are_forgotten,
        a_used_login_link_is_forgotten_by_its_age_alone,
        the_last_value_of_a_key_counts,
    }
}
