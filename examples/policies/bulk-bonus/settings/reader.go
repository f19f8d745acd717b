// Package settings reads settings. A mistake does not stop it: all problems are reported at once, each with its JSON
// Pointer.
package settings

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Problem is a mistake in the settings, at a JSON Pointer.
type Problem struct{ Path, Message string }

// Reader reads a JSON object.
type Reader struct {
	path     string
	members  map[string]json.RawMessage
	known    []string
	problems *[]Problem
}

// Read parses the settings.
func Read(text string) *Reader {
	reader := &Reader{problems: new([]Problem)}
	if json.Valid([]byte(text)) {
		reader.open(json.RawMessage(text))
	} else {
		reader.add("", "is not JSON")
	}
	return reader
}

func (r *Reader) open(raw json.RawMessage) {
	// Unmarshal accepts null for a map, and leaves it nil.
	if json.Unmarshal(raw, &r.members) != nil || r.members == nil {
		r.add("", "must be a JSON object")
	}
}

func (r *Reader) add(path, message string) {
	*r.problems = append(*r.problems, Problem{r.path + path, message})
}

// RFC 6901 escapes these two characters.
var escaped = strings.NewReplacer("~", "~0", "/", "~1")

// Note reports a problem with a setting.
func (r *Reader) Note(name, message string) { r.add("/"+escaped.Replace(name), message) }

// Problems returns all problems, those of unknown settings last.
func (r *Reader) Problems() []Problem {
	r.close()
	// The contract bounds the size of an answer.
	return (*r.problems)[:min(len(*r.problems), 64)]
}

func (r *Reader) close() {
	var unknown []string
	for name := range r.members {
		if !slices.Contains(r.known, name) {
			unknown = append(unknown, name)
		}
	}
	// Sorted, because a map has no order.
	slices.Sort(unknown)
	for _, name := range unknown {
		r.Note(name, "is not a setting; known are: "+strings.Join(r.known, ", "))
	}
}

func (r *Reader) take(name string) (json.RawMessage, bool) {
	r.known = append(r.known, name)
	value, given := r.members[name]
	return value, given
}

// Number returns a whole number within a range. With a default below the range it is required.
func (r *Reader) Number(name string, otherwise, least, most uint64) uint64 {
	value, given := r.take(name)
	if !given && otherwise >= least {
		return otherwise
	}
	if !given {
		r.Note(name, "is missing")
		return otherwise
	}
	// A pointer distinguishes null from a number.
	var number *uint64
	if json.Unmarshal(value, &number) != nil || number == nil || *number < least || *number > most {
		r.Note(name, fmt.Sprintf("must be a whole number from %d to %d", least, most))
		return otherwise
	}
	return *number
}

func text(value json.RawMessage, wrong func(string) string) (string, string) {
	var text *string
	if json.Unmarshal(value, &text) != nil || text == nil {
		return "", "must be a text"
	}
	return *text, wrong(*text)
}

// Text returns a string. `wrong` returns what is wrong with it, or "".
func (r *Reader) Text(name, otherwise string, wrong func(string) string) string {
	value, given := r.take(name)
	if !given {
		return otherwise
	}
	text, problem := text(value, wrong)
	if problem != "" {
		r.Note(name, problem)
		return otherwise
	}
	return text
}

// Texts returns a list of strings, empty if omitted. `wrong` returns what is wrong with one, or "".
func (r *Reader) Texts(name string, most int, wrong func(string) string) []string {
	items, _ := r.list(name, most, "texts")
	texts := make([]string, len(items))
	for i, item := range items {
		var problem string
		if texts[i], problem = text(item, wrong); problem != "" {
			r.Note(name, problem)
			(*r.problems)[len(*r.problems)-1].Path += fmt.Sprintf("/%d", i)
		}
	}
	return texts
}

// Objects calls `read` for each of a list of objects, and returns whether there is a list.
func (r *Reader) Objects(name string, most int, read func(*Reader)) bool {
	items, given := r.list(name, most, "objects")
	for i, item := range items {
		inner := &Reader{path: fmt.Sprintf("%s/%s/%d", r.path, escaped.Replace(name), i), problems: r.problems}
		inner.open(item)
		read(inner)
		inner.close()
	}
	return given
}

func (r *Reader) list(name string, most int, of string) ([]json.RawMessage, bool) {
	value, given := r.take(name)
	if !given {
		return nil, false
	}
	var items []json.RawMessage
	if json.Unmarshal(value, &items) != nil || items == nil {
		r.Note(name, "must be a list of "+of)
		return nil, false
	}
	if len(items) > most {
		// One problem, not one per entry.
		r.Note(name, fmt.Sprintf("must hold at most %d entries", most))
		return nil, false
	}
	return items, true
}
