// Package settings declares the settings of a policy: each once, with its default and its limits. The declaration makes the
// JSON Schema, and reads the settings: all problems are reported at once, each with its JSON Pointer. The texts are those of
// the Rust SDK.
package settings

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Settings are what a policy declares. Check reports what the fields do not say; it may be nil.
type Settings struct {
	Title  string
	Fields []Field
	Check  func(note func(name, message string))
}

// Field is a setting, and the variable that it is read into.
type Field struct {
	name     string
	schema   members
	required bool
	// The default as JSON has it, which is in the variable after reset.
	otherwise func() any
	reset     func()
	value     func() any
	read      func(json.RawMessage, place)
}

// Schema returns the JSON Schema.
func (s Settings) Schema() string {
	schema := members{{"$schema", "https://json-schema.org/draft/2020-12/schema"}, {"title", s.Title}}
	var text bytes.Buffer
	if json.Indent(&text, encode(append(schema, describe(s.Fields)...)), "", "  ") != nil {
		panic("the schema is not JSON")
	}
	return text.String()
}

// Read reads the settings into the variables of the fields, and returns the problems as the contract has them: at most 64.
func Read[P ~struct{ Path, Message string }](settings Settings, text string) []P {
	found := &problems{}
	root := place{found: found}
	var given any
	if failed := json.Unmarshal([]byte(text), &given); failed != nil {
		root.report("is not JSON: " + failed.Error())
	} else if _, isObject := given.(map[string]any); !isObject {
		root.report("must be a JSON object")
	} else {
		readObject(settings.Fields, settings.Check, json.RawMessage(text), root)
	}
	list := make([]P, len(found.list))
	for i, each := range found.list {
		list[i] = P(each)
	}
	return list
}

type number interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64
}

// Integer is a whole number from least to most. With a default outside of these it is required.
func Integer[N number](to *N, name string, otherwise, least, most N, description string) Field {
	field := simple(to, name, otherwise, description, members{{"type", "integer"}, {"minimum", least}, {"maximum", most}})
	field.required = otherwise < least || otherwise > most
	field.read = func(value json.RawMessage, at place) {
		if number := decode[N](value); number != nil && *number >= least && *number <= most {
			*to = *number
			return
		}
		at.report(fmt.Sprintf("must be a whole number from %d to %d", least, most))
	}
	return field
}

// Boolean is true or false.
func Boolean(to *bool, name string, otherwise bool, description string) Field {
	field := simple(to, name, otherwise, description, members{{"type", "boolean"}})
	field.read = func(value json.RawMessage, at place) {
		if truth := decode[bool](value); truth != nil {
			*to = *truth
			return
		}
		at.report("must be true or false")
	}
	return field
}

// Text has 1 to 512 bytes; check returns what else is wrong with it, or "", and may be nil. With an empty default it is required.
func Text(to *string, name, otherwise string, check func(string) string, description string) Field {
	field := simple(to, name, otherwise, description, members{{"type", "string"}})
	field.required = otherwise == ""
	field.read = func(value json.RawMessage, at place) {
		text, wrong := shortText(value)
		if wrong == "" {
			*to, wrong = text, checked(text, check)
		}
		at.report(wrong)
	}
	return field
}

// Choice is one of the names. With an empty default it is required.
func Choice(to *string, name, otherwise string, names []string, description string) Field {
	field := simple(to, name, otherwise, description, members{{"enum", names}})
	field.required = otherwise == ""
	field.read = func(value json.RawMessage, at place) {
		text, wrong := shortText(value)
		if wrong == "" && !slices.Contains(names, text) {
			wrong = "must be " + strings.Join(names, " or ")
		}
		if wrong == "" {
			*to = text
		}
		at.report(wrong)
	}
	return field
}

// Texts is a list of at most so many texts; check is that of Text. It is empty if it is left out.
func Texts(to *[]string, name string, most int, check func(string) string, description string) Field {
	list := members{{"type", "array"}, {"maxItems", most}, {"items", members{{"type", "string"}}}}
	field := simple(to, name, []string{}, description, list)
	field.read = func(value json.RawMessage, at place) {
		items := decode[[]json.RawMessage](value)
		if items == nil {
			at.report("must be a list of texts")
			return
		}
		texts := []string{}
		for i, item := range *items {
			if text := decode[string](item); text != nil {
				at.inside(fmt.Sprint(i)).report(checked(*text, check))
				texts = append(texts, *text)
			} else {
				at.inside(fmt.Sprint(i)).report("must be a text")
			}
		}
		at.atMost(most, len(texts))
		*to = texts
	}
	return field
}

// Objects is a list of at most so many objects, each with the fields that are returned for it.
func Objects[T any](to *[]T, name string, otherwise []T, most int, fields func(*T) []Field, description string) Field {
	items := describe(fields(new(T)))
	list := members{{"type", "array"}, {"maxItems", most}, {"items", items}}
	field := simple(to, name, otherwise, description, list)
	field.otherwise = func() any {
		objects := []members{}
		for _, each := range otherwise {
			object := members{}
			for _, field := range fields(&each) {
				object = append(object, member{field.name, field.value()})
			}
			objects = append(objects, object)
		}
		return objects
	}
	field.read = func(value json.RawMessage, at place) {
		items := decode[[]json.RawMessage](value)
		if items == nil {
			at.report("must be a list of objects")
			return
		}
		objects := make([]T, len(*items))
		for i, item := range *items {
			readObject(fields(&objects[i]), nil, item, at.inside(fmt.Sprint(i)))
		}
		at.atMost(most, len(objects))
		*to = objects
	}
	return field
}

func simple[T any](to *T, name string, otherwise T, description string, schema members) Field {
	if description != "" {
		schema = append(schema, member{"description", description})
	}
	return Field{
		name:      name,
		schema:    schema,
		otherwise: func() any { return otherwise },
		reset:     func() { *to = otherwise },
		value:     func() any { return *to },
	}
}

// What is wrong with a field in itself is replaced by its default, and reported once.
func readObject(fields []Field, check func(func(name, message string)), raw json.RawMessage, at place) {
	object := decode[map[string]json.RawMessage](raw)
	if object == nil {
		at.report("must be a JSON object")
		object = &map[string]json.RawMessage{}
	}
	var names []string
	for _, field := range fields {
		names = append(names, field.name)
		field.reset()
		if value, isGiven := (*object)[field.name]; isGiven {
			field.read(value, at.inside(field.name))
		} else if field.required {
			at.inside(field.name).report("is missing")
		}
	}
	if check != nil {
		check(func(name, message string) {
			if at := at.inside(name); !at.isReported() {
				at.report(message)
			}
		})
	}
	var unknown []string
	for name := range *object {
		if !slices.Contains(names, name) {
			unknown = append(unknown, name)
		}
	}
	// A map has no order.
	slices.Sort(unknown)
	for _, name := range unknown {
		at.inside(name).report("is not a setting; known are: " + strings.Join(names, ", "))
	}
}

func describe(fields []Field) members {
	schema := members{{"type", "object"}, {"additionalProperties", false}}
	properties, required := members{}, []string{}
	for _, field := range fields {
		described := field.schema
		if field.required {
			required = append(required, field.name)
		} else {
			described = append(slices.Clone(described), member{"default", field.otherwise()})
		}
		properties = append(properties, member{field.name, described})
	}
	if len(required) > 0 {
		schema = append(schema, member{"required", required})
	}
	return append(schema, member{"properties", properties})
}

// Returns nil for null too.
func decode[T any](value json.RawMessage) *T {
	var decoded *T
	if json.Unmarshal(value, &decoded) != nil {
		return nil
	}
	return decoded
}

func shortText(value json.RawMessage) (text, wrong string) {
	if text := decode[string](value); text != nil && len(*text) >= 1 && len(*text) <= 512 {
		return *text, ""
	}
	return "", "must be a text of 1 to 512 bytes"
}

func checked(text string, check func(string) string) string {
	if check == nil {
		return ""
	}
	return check(text)
}

type problem = struct{ Path, Message string }

type problems struct{ list []problem }

// A JSON Pointer, and where its problems are collected.
type place struct {
	path  string
	found *problems
}

// RFC 6901 escapes these two characters.
var escaped = strings.NewReplacer("~", "~0", "/", "~1")

func (p place) inside(step string) place { return place{p.path + "/" + escaped.Replace(step), p.found} }

// No message is no problem. The contract bounds the size of an answer.
func (p place) report(message string) {
	if message != "" && len(p.found.list) < 64 {
		p.found.list = append(p.found.list, problem{shorten(p.path), shorten(message)})
	}
}

func (p place) isReported() bool {
	path := shorten(p.path)
	return slices.ContainsFunc(p.found.list, func(each problem) bool { return each.Path == path })
}

func (p place) atMost(most, entries int) {
	if entries > most {
		p.report(fmt.Sprintf("must have at most %d entries", most))
	}
}

func shorten(message string) string {
	if len(message) <= 500 {
		return message
	}
	end := 497
	for !utf8.RuneStart(message[end]) {
		end--
	}
	return message[:end] + "…"
}

type member struct {
	name  string
	value any
}

// A JSON object whose members stay in their order.
type members []member

func (m members) MarshalJSON() ([]byte, error) {
	text := []byte("{")
	for i, each := range m {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(append(append(text, encode(each.name)...), ':'), encode(each.value)...)
	}
	return append(text, '}'), nil
}

func encode(value any) []byte {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if encoder.Encode(value) != nil {
		panic("the schema is not JSON")
	}
	return bytes.TrimSpace(text.Bytes())
}
