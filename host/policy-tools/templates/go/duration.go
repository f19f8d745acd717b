// Package policy is a duration policy: the whole amount at the quoted price, between a minimum and a maximum.
package policy

import (
	"fmt"
	"math"
	"math/bits"

	"wit_component/paygress_policy_duration"
	"wit_component/paygress_policy_types"
	"wit_component/settings"

	"go.bytecodealliance.org/pkg/wit/types"
)

type (
	context = paygress_policy_types.Context
	grant   = paygress_policy_types.Grant
	order   = paygress_policy_types.Order
	payment = paygress_policy_types.Payment
	price   = paygress_policy_types.Price
	quote   = paygress_policy_types.Quote
	refusal = paygress_policy_types.Refusal
	problem = paygress_policy_types.Problem
	terms   = paygress_policy_duration.RefundTerms
)

// Ten years, the most that the contract allows.
const longest = 315_360_000

// Set by Configure, which the host calls first in every instance. An instance serves one call, so nothing else is kept.
var (
	minimum, maximum uint64
	percent          uint8
)

var declared = settings.Settings{
	Title: "A minimum and a maximum",
	Fields: []settings.Field{
		settings.Integer(&minimum, "minimum_seconds", 60, 1, longest,
			"A payment that buys less is refused."),
		settings.Integer(&maximum, "maximum_seconds", 2_592_000, 1, longest,
			"A pod never has more than this before it; a payment that would exceed it is refused."),
		settings.Integer(&percent, "refund_percent", 100, 0, 100,
			"The part of the price of unused time that is refunded when a customer stops a pod."),
	},
	// What the fields do not say.
	Check: func(note func(name, message string)) {
		if minimum > maximum {
			note("minimum_seconds", "must not be more than maximum_seconds")
		}
	},
}

// Schema is a JSON Schema of the settings.
func Schema() string { return declared.Schema() }

// Configure takes the settings.
func Configure(json string) wit_types.Result[wit_types.Unit, []problem] {
	if problems := settings.Read[problem](declared, json); len(problems) > 0 {
		return wit_types.Err[wit_types.Unit](problems)
	}
	return wit_types.Ok[wit_types.Unit, []problem](wit_types.Unit{})
}

func refuse(code, format string, values ...any) wit_types.Result[grant, refusal] {
	return wit_types.Err[grant](refusal{code, fmt.Sprintf(format, values...)})
}

// The whole seconds that an amount buys at a price that is not zero.
func buys(price price, sat uint64) uint64 {
	// There are 2.1e15 sat: a thousand times that is within 64 bits, and what it is multiplied with may be not.
	high, low := bits.Mul64(min(sat, 2_100_000_000_000_000)*1_000, price.Seconds)
	if high >= price.Msat {
		return math.MaxUint64
	}
	seconds, _ := bits.Div64(high, low, price.Msat)
	return seconds
}

// Grant is the time that the net amount buys.
func Grant(order order, quote quote, payment payment, _ context) wit_types.Result[grant, refusal] {
	var remaining uint64
	if order.Purpose.Tag() == paygress_policy_types.PurposeExtend {
		lease := order.Purpose.Extend()
		remaining = lease.RemainingSeconds
		if remaining == 0 {
			return refuse("lease_expired", "this pod has ended; order a new one")
		}
		if !lease.OwnedByCustomer {
			return refuse("not_owner", "only the customer who bought this pod may extend it")
		}
	}
	room := maximum - min(maximum, remaining)
	least := max(minimum, order.WantedSeconds.SomeOr(0))
	// Free time lasts as long as requested, or an hour.
	seconds := min(max(order.WantedSeconds.SomeOr(3_600), minimum), room)
	if quote.Price.Msat > 0 {
		seconds = buys(quote.Price, payment.NetSat)
	}
	if seconds < least {
		return refuse("insufficient_payment", "the token is worth %d sat and buys %d s; the least is %d s", payment.NetSat, seconds, least)
	}
	if seconds > room {
		return refuse("invalid_request", "the token buys %d s, and this pod may have at most %d s more", seconds, room)
	}
	return wit_types.Ok[grant, refusal](grant{Seconds: seconds, Note: wit_types.None[string]()})
}

// Refund returns the terms for a customer who stops the pod. Used minutes are charged whole.
func Refund(order, quote, payment, grant, context) terms {
	return terms{StepSeconds: 60, Percent: percent}
}
