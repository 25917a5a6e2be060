package launchd

import (
	"bytes"
	"encoding/xml"
	"fmt"
)

// A dict is a property list's dictionary, in the order in which it is written.
// Values are string, int, bool, dict, or []string.
type dict []entry

type entry struct {
	key   string
	value any
}

const plistHead = `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
`

// plist writes a property list, as plutil(1) would. There is no octal in it: modes
// are decimal numbers.
func plist(d dict) []byte {
	var b bytes.Buffer
	b.WriteString(plistHead)
	writeValue(&b, "", d)
	b.WriteString("</plist>\n")
	return b.Bytes()
}

func writeValue(b *bytes.Buffer, indent string, value any) {
	switch v := value.(type) {
	case string:
		writeText(b, indent, "string", v)
	case int:
		fmt.Fprintf(b, "%s<integer>%d</integer>\n", indent, v)
	case bool:
		fmt.Fprintf(b, "%s<%t/>\n", indent, v)
	case []string:
		fmt.Fprintf(b, "%s<array>\n", indent)
		for _, s := range v {
			writeText(b, indent+"\t", "string", s)
		}
		fmt.Fprintf(b, "%s</array>\n", indent)
	case dict:
		fmt.Fprintf(b, "%s<dict>\n", indent)
		for _, e := range v {
			writeText(b, indent+"\t", "key", e.key)
			writeValue(b, indent+"\t", e.value)
		}
		fmt.Fprintf(b, "%s</dict>\n", indent)
	default:
		panic(fmt.Sprintf("a property list has no %T", value))
	}
}

func writeText(b *bytes.Buffer, indent, tag, text string) {
	fmt.Fprintf(b, "%s<%s>", indent, tag)
	_ = xml.EscapeText(b, []byte(text)) // a buffer takes it
	fmt.Fprintf(b, "</%s>\n", tag)
}
