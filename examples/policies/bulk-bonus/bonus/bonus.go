// Package bonus is a duration policy: large payments get extra time.
package bonus

import (
	"fmt"
	"math/bits"
)

// longest is ten years, the maximum of the contract.
const longest = 315_360_000

// maxSat is the number of sat that will ever exist: 21 million bitcoin.
const maxSat = 2_100_000_000_000_000

// Lease is what the policy needs to know of a running pod.
type Lease struct {
	Remaining uint64
	Own       bool
}

// Deal is an order with its price and payment.
type Deal struct {
	Extends      *Lease  // nil: a new pod
	Wanted       *uint64 // in seconds; nil: whatever the token pays for
	Msat, Per    uint64  // the price: Msat per so many seconds
	NetSat, Fees uint64
}

// Refusal says why nothing is granted.
type Refusal struct{ Code, Message string }

// Grant returns the duration in seconds that the net amount buys, and an optional note for the customer.
func (s Settings) Grant(deal Deal) (seconds uint64, note string, refused *Refusal) {
	var remaining uint64
	if lease := deal.Extends; lease != nil {
		if lease.Remaining == 0 {
			return 0, "", &Refusal{"lease_expired", "this pod has ended; order a new one"}
		}
		if !lease.Own {
			return 0, "", &Refusal{"not_owner", "only the customer who bought this pod may extend it"}
		}
		remaining = lease.Remaining
	}
	var available uint64
	if remaining < s.Maximum {
		available = s.Maximum - remaining
	}

	minimum := s.Minimum
	if deal.Wanted != nil {
		minimum = max(minimum, *deal.Wanted)
	}
	var bought, extra uint64
	switch {
	case deal.Msat > 0:
		bought = secondsFor(deal)
	case deal.Wanted != nil:
		bought = minimum
	default:
		// At a price of zero the duration is an hour, unless the order says another.
		bought = max(s.Minimum, min(3_600, available))
	}
	if bought > available {
		message := fmt.Sprintf("this order is for %d s, and this pod may have at most %d s more", bought, available)
		return 0, "", &Refusal{"invalid_request", message}
	}
	if percent := s.percent(bought); percent > 0 && deal.Msat > 0 {
		// Only the bonus may be shortened, not what was paid for.
		extra = min(bought*percent/100, available-bought)
	}
	if bought+extra < minimum {
		message := fmt.Sprintf("the token is worth %d sat after the mint's fee of %d sat and buys %d s; %d s cost %d sat, without a bonus",
			deal.NetSat, deal.Fees, bought+extra, minimum, satFor(deal, minimum))
		return 0, "", &Refusal{"insufficient_payment", message}
	}
	if extra > 0 {
		note = fmt.Sprintf("the payment bought %d s, plus a bonus of %d s; of its unused time %d %% is refunded if you stop the pod",
			bought, extra, s.BonusRefund)
	}
	return bought + extra, note, nil
}

// RefundPercent returns the share of the price of unused time that is refunded of a grant of so many seconds. The price
// of a second is the payment's by all that was granted, so a refund of a bonus would sell the bulk price for any duration.
func (s Settings) RefundPercent(deal Deal, granted uint64) uint8 {
	if deal.Msat > 0 && granted > secondsFor(deal) {
		return s.BonusRefund
	}
	return s.Refund
}

// percent returns the largest bonus for a duration.
func (s Settings) percent(seconds uint64) uint64 {
	var most uint64
	for _, step := range s.Bonuses {
		if seconds >= step.Hours*3_600 {
			most = max(most, step.Percent)
		}
	}
	return most
}

// secondsFor returns the whole seconds that the net amount buys, or longest+1 if there are more.
func secondsFor(deal Deal) uint64 {
	high, low := bits.Mul64(min(deal.NetSat, maxSat)*1_000, deal.Per)
	if high >= deal.Msat {
		return longest + 1
	}
	seconds, _ := bits.Div64(high, low, deal.Msat)
	return min(seconds, longest+1)
}

// satFor returns the smallest amount in sat that buys at least this duration.
func satFor(deal Deal, seconds uint64) uint64 {
	high, low := bits.Mul64(seconds, deal.Msat)
	// A sat is a thousand msat: one division for both roundings.
	per := deal.Per * 1_000
	low, carry := bits.Add64(low, per-1, 0)
	high += carry
	if high >= per {
		return maxSat
	}
	sat, _ := bits.Div64(high, low, per)
	return sat
}
