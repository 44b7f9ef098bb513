package config

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// typeOf names the TOML type of a decoded value.
func typeOf(value any) string {
	switch value.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case float64:
		return "a float"
	case bool:
		return "a boolean"
	case []any:
		return "a list"
	case []map[string]any:
		return "a list of tables"
	case map[string]any:
		return "a table"
	default:
		return "a date or time"
	}
}

// show returns a value as it stands in the file, or "" for tables, which are too
// long for a line, and dates, which no key takes.
func show(value any) string {
	switch v := value.(type) {
	case string:
		return quote(v)
	case int64, float64, bool:
		return fmt.Sprint(v)
	case []any:
		return showList(v)
	case []string:
		return showList(v)
	default:
		return ""
	}
}

func showList[T any](items []T) string {
	shown := make([]string, len(items))
	for i, item := range items {
		shown[i] = show(item)
	}
	return shorten("[" + strings.Join(shown, ", ") + "]")
}

// quote returns the text in quotes, on one line.
func quote(s string) string { return shorten(strconv.Quote(s)) }

// printable returns a name or message, which may hold anything, on one line.
func printable(s string) string {
	var line strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			line.WriteRune(r)
		} else {
			line.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return shorten(line.String())
}

// shorten keeps a line readable when somebody has put a whole file in a value.
func shorten(s string) string {
	const most = 120 // bytes
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
