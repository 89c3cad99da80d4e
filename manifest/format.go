package manifest

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/lull-dev/lull"
)

// Format writes a manifest as the text of a lull.yaml. What has its default is left out, so that a person sees what the app
// is about. Parse reads the same manifest from it.
func Format(m lull.Manifest) ([]byte, error) {
	defaults := lull.DefaultManifest()
	if m.IsFunction() {
		defaults.Concurrency, defaults.Function = 1, lull.DefaultFunction()
	}
	text, err := yaml.MarshalWithOptions(differences(reflect.ValueOf(m), reflect.ValueOf(defaults)),
		yaml.IndentSequence(true), yaml.UseLiteralStyleIfMultiline(true))
	if err != nil {
		return nil, fmt.Errorf("write manifest: %w", err)
	}
	read, err := Parse(text, FileName)
	if err != nil {
		return nil, fmt.Errorf("write manifest: %w", err)
	}
	if !reflect.DeepEqual(plain(read), plain(m)) {
		return nil, fmt.Errorf("write manifest: the text reads as another manifest")
	}
	return text, nil
}

// plain makes empty and missing maps the same.
func plain(m lull.Manifest) lull.Manifest {
	if len(m.Env) == 0 {
		m.Env = nil
	}
	return m
}

// differences lists the fields of a struct that are not as in another, by their names in the file.
func differences(v, defaults reflect.Value) yaml.MapSlice {
	var items yaml.MapSlice
	for i := range v.NumField() {
		field, usual := v.Field(i), defaults.Field(i)
		if reflect.DeepEqual(field.Interface(), usual.Interface()) || field.Kind() == reflect.Map && field.Len() == 0 {
			continue
		}
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		items = append(items, yaml.MapItem{Key: name, Value: written(field, usual)})
	}
	return items
}

func written(v, usual reflect.Value) any {
	switch value := v.Interface().(type) {
	case lull.Duration:
		return value.String()
	case lull.Size:
		if read, err := lull.ParseSize(value.String()); err == nil && read == value {
			return value.String()
		}
		return fmt.Sprintf("%dB", int64(value))
	}
	switch {
	case v.Kind() == reflect.Struct:
		return differences(v, usual)
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
		var list []any
		for i := range v.Len() {
			list = append(list, differences(v.Index(i), reflect.Zero(v.Type().Elem())))
		}
		return list
	}
	return v.Interface()
}
