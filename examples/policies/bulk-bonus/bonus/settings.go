package bonus

import (
	"fmt"

	"wit_component/settings"
)

// Schema is the JSON Schema of the settings.
const Schema = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "Bulk bonus",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "minimum_seconds": {
      "type": "integer", "minimum": 1, "maximum": 315360000, "default": 60,
      "description": "The shortest duration. A payment that buys less is refused."
    },
    "maximum_seconds": {
      "type": "integer", "minimum": 1, "maximum": 315360000, "default": 2592000,
      "description": "The longest remaining duration of a pod. A payment that would exceed it is refused; a bonus is shortened."
    },
    "refund_percent": {
      "type": "integer", "minimum": 0, "maximum": 100, "default": 100,
      "description": "The share of the price of unused time that is refunded when the customer stops the pod; 0: no refund. Used time is charged in whole minutes."
    },
    "bonuses": {
      "type": "array", "maxItems": 16,
      "description": "The bonuses; the largest one that applies is given. If omitted: 10 % from 24 hours, 20 % from 168 hours.",
      "items": {
        "type": "object", "additionalProperties": false, "required": ["hours", "percent"],
        "properties": {
          "hours": {
            "type": "integer", "minimum": 1, "maximum": 87600,
            "description": "Applies to payments that buy at least this many hours."
          },
          "percent": {"type": "integer", "minimum": 1, "maximum": 100}
        }
      }
    }
  }
}`

// Settings are the settings of the operator.
type Settings struct {
	Minimum, Maximum uint64
	Refund           uint8 // in percent
	Bonuses          []Step
}

// Step is a bonus for payments of at least Hours.
type Step struct{ Hours, Percent uint64 }

// Read parses settings.
func Read(text string) (Settings, []settings.Problem) {
	read := Settings{Bonuses: []Step{{Hours: 24, Percent: 10}, {Hours: 168, Percent: 20}}}
	reader := settings.Read(text)
	read.Minimum = reader.Number("minimum_seconds", 60, 1, longest)
	read.Maximum = reader.Number("maximum_seconds", 2_592_000, 1, longest)
	read.Refund = uint8(reader.Number("refund_percent", 100, 0, 100))
	var steps []Step
	given := reader.Objects("bonuses", 16, func(item *settings.Reader) {
		steps = append(steps, Step{item.Number("hours", 0, 1, 87_600), item.Number("percent", 0, 1, 100)})
	})
	if given {
		read.Bonuses = steps
	}
	if read.Minimum > read.Maximum {
		reader.Note("minimum_seconds", fmt.Sprintf("must not be more than maximum_seconds, %d", read.Maximum))
	}
	return read, reader.Problems()
}
