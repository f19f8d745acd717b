package settings

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
)

type common struct {
	seconds int64
	enabled bool
	image   string
	labels  []string
	mode    string
	steps   []step
}

type step struct{ percent, days uint16 }

func (c *common) declare() Settings {
	return Settings{
		Title: "Of every kind",
		Fields: []Field{
			Integer(&c.seconds, "seconds", 60, 1, 3_600, `A "comment".`),
			Boolean(&c.enabled, "enabled", false, ""),
			Text(&c.image, "image", "a:1", nil, ""),
			Texts(&c.labels, "labels", 2, nil, ""),
			Choice(&c.mode, "mode", "slow", []string{"slow", "very-fast"}, ""),
			Objects(&c.steps, "steps", nil, 2, func(s *step) []Field {
				return []Field{Integer(&s.percent, "percent", 0, 1, 90, ""), Integer(&s.days, "days", 0, 0, 3_650, "")}
			}, ""),
		},
		Check: func(note func(name, message string)) {
			if c.enabled && c.seconds > 100 {
				note("seconds", "must not be more than 100 when enabled")
			}
		},
	}
}

func parse(t *testing.T, text string) any {
	t.Helper()
	var value any
	if failed := json.Unmarshal([]byte(text), &value); failed != nil {
		t.Fatal(failed, text)
	}
	return value
}

func TestTheSchemaAndTheProblemsAreThoseOfEveryLanguage(t *testing.T) {
	text, failed := os.ReadFile("../../../../plugins/sdk/tests/cases.json")
	if failed != nil {
		t.Fatal(failed)
	}
	var expected struct {
		Schema any
		Cases  []struct {
			Settings json.RawMessage
			Problems [][2]string
		}
	}
	if failed := json.Unmarshal(text, &expected); failed != nil {
		t.Fatal(failed)
	}
	if schema := new(common).declare().Schema(); !reflect.DeepEqual(parse(t, schema), expected.Schema) {
		t.Error(schema)
	}
	for _, c := range expected.Cases {
		found := [][2]string{}
		for _, each := range Read[problem](new(common).declare(), string(c.Settings)) {
			found = append(found, [2]string{each.Path, each.Message})
		}
		if !reflect.DeepEqual(found, c.Problems) {
			t.Errorf("%s:\n%q", c.Settings, found)
		}
	}
}

func TestWhatIsLeftOutHasItsDefault(t *testing.T) {
	var read common
	if problems := Read[problem](read.declare(), `{"mode": "very-fast", "steps": [{"percent": 5}]}`); len(problems) > 0 {
		t.Fatal(problems)
	}
	expected := common{seconds: 60, image: "a:1", labels: []string{}, mode: "very-fast", steps: []step{{5, 0}}}
	if !reflect.DeepEqual(read, expected) {
		t.Error(read)
	}
}

func TestADefaultOfObjectsIsInTheSchema(t *testing.T) {
	var read []step
	fields := func(s *step) []Field { return []Field{Integer(&s.percent, "<percent>", 0, 1, 90, "")} }
	schema := Settings{Fields: []Field{Objects(&read, "steps", []step{{percent: 7}}, 1, fields, "")}}.Schema()
	properties := parse(t, schema).(map[string]any)["properties"].(map[string]any)
	if found := properties["steps"].(map[string]any)["default"]; !reflect.DeepEqual(found, parse(t, `[{"<percent>": 7}]`)) {
		t.Error(schema)
	}
}

func TestAPolicysOwnChecks(t *testing.T) {
	var one string
	var many []string
	odd := func(text string) string {
		if len(text)%2 == 0 {
			return "must be odd"
		}
		return ""
	}
	declared := Settings{Fields: []Field{Text(&one, "one", "a", odd, ""), Texts(&many, "many", 2, odd, "")}}
	expected := []problem{{"/one", "must be odd"}, {"/many/1", "must be odd"}}
	if found := Read[problem](declared, `{"one": "ab", "many": ["a", "ab"]}`); !reflect.DeepEqual(found, expected) {
		t.Error(found)
	}
}

func TestAnAnswerIsBounded(t *testing.T) {
	many := map[string]int{}
	for i := range 5_000 {
		many[strings.Repeat("ü", 1_000+i)] = i
	}
	text, _ := json.Marshal(many)
	found := Read[problem](new(common).declare(), string(text))
	if len(found) != 64 || !strings.HasSuffix(found[0].Path, "ü…") {
		t.Error(len(found), found[0])
	}
	for _, each := range found {
		if len(each.Path) > 500 || len(each.Message) > 500 {
			t.Error(each)
		}
	}
	for _, text := range []string{"", "nonsense", "{} {}", `{"seconds": NaN}`} {
		found := Read[problem](new(common).declare(), text)
		if len(found) != 1 || found[0].Path != "" || !strings.HasPrefix(found[0].Message, "is not JSON: ") {
			t.Error(text, found)
		}
	}
}
