package bonus

import (
	"math"
	"reflect"
	"testing"

	"wit_component/settings"
)

type problem struct{ Path, Message string }

func read(text string) (Settings, []problem) {
	var read Settings
	problems := settings.Read[problem](read.Declare(), text)
	return read, problems
}

func grantFor(t *testing.T, text string, deal Deal) (uint64, string, string) {
	t.Helper()
	settings, problems := read(text)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if deal.Per == 0 {
		deal.Msat, deal.Per = 1_000, 60
	}
	seconds, note, refused := settings.Grant(deal)
	if refused != nil {
		return 0, "", refused.Code
	}
	return seconds, note, ""
}

func TestGrant(t *testing.T) {
	number := func(n uint64) *uint64 { return &n }
	for name, c := range map[string]struct {
		settings string
		deal     Deal
		seconds  uint64
		code     string
	}{
		"a sat buys a minute":             {`{}`, Deal{NetSat: 20}, 1_200, ""},
		"a day has a bonus":               {`{}`, Deal{NetSat: 1_440}, 95_040, ""},
		"a minute less has no bonus":      {`{}`, Deal{NetSat: 1_439}, 86_340, ""},
		"the largest bonus is given":      {`{}`, Deal{NetSat: 10_080}, 725_760, ""},
		"no bonuses":                      {`{"bonuses": []}`, Deal{NetSat: 1_440}, 86_400, ""},
		"too little":                      {`{}`, Deal{NetSat: 0}, 0, "insufficient_payment"},
		"less than was requested":         {`{}`, Deal{NetSat: 9, Wanted: number(600)}, 0, "insufficient_payment"},
		"a bonus counts for the request":  {`{}`, Deal{NetSat: 1_440, Wanted: number(95_040)}, 95_040, ""},
		"above the maximum":               {`{"maximum_seconds": 600}`, Deal{NetSat: 11}, 0, "invalid_request"},
		"above the maximum with the rest": {`{"maximum_seconds": 600}`, Deal{NetSat: 5, Extends: &Lease{301, true}}, 0, "invalid_request"},
		"a bonus is shortened":            {`{"maximum_seconds": 90000}`, Deal{NetSat: 1_440}, 90_000, ""},
		"another customer":                {`{}`, Deal{NetSat: 5, Extends: &Lease{300, false}}, 0, "not_owner"},
		"after the end":                   {`{}`, Deal{NetSat: 5, Extends: &Lease{0, true}}, 0, "lease_expired"},
		"free":                            {`{}`, Deal{Per: 1}, 3_600, ""},
		"free, with a requested duration": {`{}`, Deal{Per: 1, Wanted: number(600)}, 600, ""},
		"free, above the maximum":         {`{}`, Deal{Per: 1, Wanted: number(math.MaxUint64)}, 0, "invalid_request"},
		"more money than exists":          {`{}`, Deal{NetSat: math.MaxUint64, Msat: 1, Per: longest}, 0, "invalid_request"},
		"more than can ever be paid for":  {`{}`, Deal{NetSat: 1, Msat: 2_100_000_000_000_000_000, Per: 1, Wanted: number(math.MaxUint64)}, 0, "insufficient_payment"},
	} {
		seconds, _, code := grantFor(t, c.settings, c.deal)
		if seconds != c.seconds || code != c.code {
			t.Errorf("%s: %d s, %q", name, seconds, code)
		}
	}
}

func TestRefundPercent(t *testing.T) {
	day := Deal{NetSat: 1_440, Msat: 1_000, Per: 60}
	for name, c := range map[string]struct {
		settings string
		deal     Deal
		granted  uint64
		percent  uint8
	}{
		"without a bonus":           {`{}`, day, 86_400, 100},
		"with a bonus":              {`{}`, day, 95_040, 0},
		"a shortened one":           {`{}`, day, 86_401, 0},
		"as the operator has it":    {`{"bonus_refund_percent": 40}`, day, 95_040, 40},
		"that is of a bonus alone":  {`{"refund_percent": 90, "bonus_refund_percent": 40}`, day, 86_400, 90},
		"at a price of zero":        {`{}`, Deal{Per: 1}, 3_600, 100},
		"more money than exists":    {`{}`, Deal{NetSat: math.MaxUint64, Msat: 1, Per: longest}, longest, 100},
		"a price that buys nothing": {`{}`, Deal{NetSat: 0, Msat: math.MaxUint64, Per: 1}, 1, 0},
	} {
		settings, problems := read(c.settings)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		if percent := settings.RefundPercent(c.deal, c.granted); percent != c.percent {
			t.Errorf("%s: %d %%", name, percent)
		}
	}
}

func TestAllProblemsAreReportedAtOnce(t *testing.T) {
	_, problems := read(`{"minimum_seconds": 100, "maximum_seconds": 50, "bonuses": [{"hours": 1.5}, null, {"hours": 1, "percent": null, "x~/": 1}], "b": 1, "a": 1}`)
	var paths []string
	for _, problem := range problems {
		paths = append(paths, problem.Path)
	}
	want := []string{"/bonuses/0/hours", "/bonuses/0/percent", "/bonuses/1", "/bonuses/1/hours", "/bonuses/1/percent",
		"/bonuses/2/percent", "/bonuses/2/x~0~1", "/minimum_seconds", "/a", "/b"}
	if !reflect.DeepEqual(paths, want) {
		t.Error(paths)
	}
	for _, text := range []string{"", "nonsense", "[]", "null", "{} {}"} {
		if _, problems := read(text); len(problems) != 1 || problems[0].Path != "" {
			t.Error(text, problems)
		}
	}
}
