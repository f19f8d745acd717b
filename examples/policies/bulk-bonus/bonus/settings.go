package bonus

import (
	"fmt"

	"wit_component/settings"
)

// Settings are the settings of the operator.
type Settings struct {
	Minimum, Maximum uint64
	Refund           uint8 // in percent
	BonusRefund      uint8 // the same for a payment with a bonus
	Bonuses          []Step
}

// Step is a bonus for payments of at least Hours.
type Step struct{ Hours, Percent uint64 }

// Declare declares the settings, to be read into these.
func (s *Settings) Declare() settings.Settings {
	bonuses := []Step{{Hours: 24, Percent: 10}, {Hours: 168, Percent: 20}}
	return settings.Settings{
		Title: "Bulk bonus",
		Fields: []settings.Field{
			settings.Integer(&s.Minimum, "minimum_seconds", 60, 1, longest,
				"The shortest duration. A payment that buys less is refused."),
			settings.Integer(&s.Maximum, "maximum_seconds", 2_592_000, 1, longest,
				"The longest remaining duration of a pod. A payment that would exceed it is refused; a bonus is shortened."),
			settings.Integer(&s.Refund, "refund_percent", 100, 0, 100,
				"The share of the price of unused time that is refunded when the customer stops the pod; 0: no refund. "+
					"Used time is charged in whole minutes."),
			settings.Integer(&s.BonusRefund, "bonus_refund_percent", 0, 0, 100,
				"The same for a payment with a bonus. Above 0, customers who pay for long and stop the pod "+
					"may have paid less than others for the same time."),
			settings.Objects(&s.Bonuses, "bonuses", bonuses, 16, declareStep,
				"The bonuses; the largest one that applies is given."),
		},
		Check: func(note func(name, message string)) {
			if s.Minimum > s.Maximum {
				note("minimum_seconds", fmt.Sprintf("must not be more than maximum_seconds, %d", s.Maximum))
			}
		},
	}
}

func declareStep(step *Step) []settings.Field {
	return []settings.Field{
		// Both are required.
		settings.Integer(&step.Hours, "hours", 0, 1, 87_600, "Applies to payments that buy at least this many hours."),
		settings.Integer(&step.Percent, "percent", 0, 1, 100, ""),
	}
}
