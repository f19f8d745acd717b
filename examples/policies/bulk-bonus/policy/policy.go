// Package policy implements the contract with the package bonus.
package policy

import (
	"wit_component/bonus"
	"wit_component/paygress_policy_duration"
	"wit_component/paygress_policy_types"
	"wit_component/settings"

	"go.bytecodealliance.org/pkg/wit/types"
)

type (
	order   = paygress_policy_types.Order
	quote   = paygress_policy_types.Quote
	payment = paygress_policy_types.Payment
	context = paygress_policy_types.Context
	grant   = paygress_policy_types.Grant
	refusal = paygress_policy_types.Refusal
	problem = paygress_policy_types.Problem
	terms   = paygress_policy_duration.RefundTerms
)

// Set by Configure, the first call in every instance. An instance serves one call, so there is no other state.
var config bonus.Settings

// Schema returns the JSON Schema of the settings.
func Schema() string { return config.Declare().Schema() }

// Configure applies the settings.
func Configure(json string) wit_types.Result[wit_types.Unit, []problem] {
	if problems := settings.Read[problem](config.Declare(), json); len(problems) > 0 {
		return wit_types.Err[wit_types.Unit](problems)
	}
	return wit_types.Ok[wit_types.Unit, []problem](wit_types.Unit{})
}

// Grant returns the duration that the net amount buys, with the bonus.
func Grant(order order, quote quote, payment payment, _ context) wit_types.Result[grant, refusal] {
	deal := bonus.Deal{Msat: quote.Price.Msat, Per: quote.Price.Seconds, NetSat: payment.NetSat, Fees: payment.FeeSat}
	if order.Purpose.Tag() == paygress_policy_types.PurposeExtend {
		lease := order.Purpose.Extend()
		deal.Extends = &bonus.Lease{Remaining: lease.RemainingSeconds, Own: lease.OwnedByCustomer}
	}
	if order.WantedSeconds.IsSome() {
		wanted := order.WantedSeconds.Some()
		deal.Wanted = &wanted
	}
	seconds, note, refused := config.Grant(deal)
	if refused != nil {
		return wit_types.Err[grant](refusal(*refused))
	}
	granted := grant{Seconds: seconds, Note: wit_types.None[string]()}
	if note != "" {
		granted.Note = wit_types.Some(note)
	}
	return wit_types.Ok[grant, refusal](granted)
}

// Refund returns the terms for customers who stop a pod: used time is charged by the minute.
func Refund(_ order, quote quote, payment payment, granted grant, _ context) terms {
	deal := bonus.Deal{Msat: quote.Price.Msat, Per: quote.Price.Seconds, NetSat: payment.NetSat}
	return terms{StepSeconds: 60, Percent: config.RefundPercent(deal, granted.Seconds)}
}
