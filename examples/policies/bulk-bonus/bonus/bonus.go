// Package bonus is a duration policy: who pays for long at once gets some time on top.
package bonus

import (
	"fmt"
	"math/bits"
)

// longest is ten years, the contract's maximum.
const longest = 315_360_000

// money is more than there will ever be, in sat: 21 million bitcoin.
const money = 2_100_000_000_000_000

// Lease is what the policy asks of a running pod.
type Lease struct {
	Remaining uint64
	Own       bool
}

// Deal is an order with its price and payment.
type Deal struct {
	Extends      *Lease  // nil: a new pod
	Wanted       *uint64 // in seconds; nil: whatever the token pays for
	Msat, Per    uint64  // the price: so many msat for so many seconds
	NetSat, Fees uint64
}

// Refusal is why nothing is granted.
type Refusal struct{ Code, Message string }

// Grant is the time for all of the net amount in seconds, and a note for the customer or none.
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
	var room uint64
	if remaining < s.Maximum {
		room = s.Maximum - remaining
	}

	least := s.Minimum
	if deal.Wanted != nil {
		least = max(least, *deal.Wanted)
	}
	var bought, extra uint64
	switch {
	case deal.Msat > 0:
		bought = buys(deal)
	case deal.Wanted != nil:
		bought = least
	default:
		// A gift lasts an hour unless something else was asked for.
		bought = max(s.Minimum, min(3_600, room))
	}
	if bought > room {
		message := fmt.Sprintf("this would be %d s, and this pod may have at most %d s more", bought, room)
		return 0, "", &Refusal{"invalid_request", message}
	}
	if percent := s.percent(bought); percent > 0 && deal.Msat > 0 {
		// What was paid for is never cut; what was not is.
		extra = min(bought*percent/100, room-bought)
	}
	if bought+extra < least {
		message := fmt.Sprintf("the token is worth %d sat after the mint's fee of %d sat and buys %d s; %d s cost %d sat, without a bonus",
			deal.NetSat, deal.Fees, bought+extra, least, costs(deal, least))
		return 0, "", &Refusal{"insufficient_payment", message}
	}
	if extra > 0 {
		note = fmt.Sprintf("the payment bought %d s, and %d s come on top", bought, extra)
	}
	return bought + extra, note, nil
}

// percent is the largest bonus for so many seconds.
func (s Settings) percent(seconds uint64) uint64 {
	var most uint64
	for _, step := range s.Bonuses {
		if seconds >= step.Hours*3_600 {
			most = max(most, step.Percent)
		}
	}
	return most
}

// buys is the whole seconds that the net amount buys, or one more than the longest.
func buys(deal Deal) uint64 {
	high, low := bits.Mul64(min(deal.NetSat, money)*1_000, deal.Per)
	if high >= deal.Msat {
		return longest + 1
	}
	seconds, _ := bits.Div64(high, low, deal.Msat)
	return min(seconds, longest+1)
}

// costs is the least amount in sat that buys so many seconds.
func costs(deal Deal, seconds uint64) uint64 {
	high, low := bits.Mul64(seconds, deal.Msat)
	// A sat is a thousand msat. Both divisions round up, at once.
	per := deal.Per * 1_000
	low, carry := bits.Add64(low, per-1, 0)
	high += carry
	if high >= per {
		return money
	}
	sat, _ := bits.Div64(high, low, per)
	return sat
}
