// Package policy is a pricing policy: one size, so many sat an hour.
package policy

import (
	"wit_component/paygress_policy_types"
	"wit_component/settings"

	"go.bytecodealliance.org/pkg/wit/types"
)

type (
	context   = paygress_policy_types.Context
	offer     = paygress_policy_types.Offer
	order     = paygress_policy_types.Order
	price     = paygress_policy_types.Price
	quote     = paygress_policy_types.Quote
	refusal   = paygress_policy_types.Refusal
	resources = paygress_policy_types.Resources
	problem   = paygress_policy_types.Problem
)

// More is a mistake in the settings.
const most = 10_000_000_000

// Set by Configure, which the host calls first in every instance. An instance serves one call, so nothing else is kept.
var satsPerHour, minimumSat uint64

var declared = settings.Settings{
	Title: "One price",
	Fields: []settings.Field{
		settings.Integer(&satsPerHour, "sats_per_hour", 60, 1, most, ""),
		settings.Integer(&minimumSat, "minimum_sat", 1, 0, most, "The least net amount that is accepted, in sat."),
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

const tier = "standard"

var size = resources{CpuMillicores: 1_000, MemoryMib: 1_024}

// It is exact: in thousandths of a sat, for an hour.
func hour() price { return price{Msat: satsPerHour * 1_000, Seconds: 3_600} }

// Offers are what is for sale.
func Offers(context) []offer {
	return []offer{{tier, "Standard", "A pod with SSH", size, hour(), minimumSat}}
}

// Quote is the price of an order.
func Quote(order order, _ context) wit_types.Result[quote, refusal] {
	wanted := order.Tier.SomeOr(tier)
	// More time for a running pod is of its tier.
	if order.Purpose.Tag() == paygress_policy_types.PurposeExtend {
		wanted = order.Purpose.Extend().Tier
	}
	if wanted != tier {
		return wit_types.Err[quote](refusal{"invalid_spec", "there is no such tier; choose: " + tier})
	}
	return wit_types.Ok[quote, refusal](quote{tier, size, hour(), minimumSat})
}
