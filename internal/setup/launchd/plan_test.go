package launchd

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/rootapi"
	"github.com/tunneld/tunneld/internal/setup"
	"github.com/tunneld/tunneld/internal/setup/setuptest"
)

const socket = "/var/run/tunneld-helper.501.sock"

func wish(without ...string) Wish {
	return Wish{
		Policy: setup.Policy{UID: "501", Domain: "local", Addresses: netip.MustParsePrefix("127.77.0.0/16"), Ports: []uint16{80, 443, 8080}},
		Home:   "/Users/dev", Socket: socket,
		State: "/Users/dev/.local/state/tunneld", Environment: "/Users/dev/.local/state/tunneld/environment.json",
		Missing: []string{"/Users/dev/.local"},
		Content: map[string][]byte{"tunneld": []byte("d"), "tunnelctl": []byte("c"), "tunneld-helper": []byte("h")},
		Without: without,
	}
}

func TestPlan(t *testing.T) {
	plan, err := Plan(wish())
	if err != nil {
		t.Fatal(err)
	}
	setuptest.Golden(t, "plan.txt", setuptest.Lines(plan))
	setuptest.Golden(t, "agent.plist", Agent("/Users/dev"))
	setuptest.Golden(t, "helper.plist", Helper(501, socket))
	setuptest.Check(t, plan)
	for _, i := range plan {
		if i.Kind == setup.File && len(i.Content) == 0 && !strings.HasSuffix(i.Path, "/lock") {
			t.Errorf("%s is empty", i.Path)
		}
		if i.Kind != setup.Home && strings.HasPrefix(i.Path, "/Users/") {
			t.Errorf("root would make %s %s in a home", i.Kind, i.Path)
		}
		if i.Path == policyPath("501") {
			if _, err := rootapi.ParsePolicy(i.Content); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestPlanWithout(t *testing.T) {
	plan, err := Plan(wish(Steps()...))
	if err != nil || len(plan) > 0 {
		t.Errorf("%s %v; want nothing", setuptest.Lines(plan), err)
	}
	plan, err = Plan(wish(setup.NamesStep))
	if err != nil || bytes.Contains(setuptest.Lines(plan), []byte("helper.501")) || !bytes.Contains(setuptest.Lines(plan), []byte(AgentLabel)) {
		t.Errorf("%s %v; want the daemon alone", setuptest.Lines(plan), err)
	}
	for _, uid := range []string{"", "dev", "-1"} {
		w := wish()
		w.UID = uid
		if _, err := Plan(w); err == nil {
			t.Errorf("user %q: no error", uid)
		}
	}
}

// What is written is read back as what it says, by the grammar of Apple's DTD.
func TestPropertyLists(t *testing.T) {
	odd := dict{
		{"text", "a <b> & \"c\" 'ü'"}, {"empty", ""}, {"no", false}, {"negative", -1},
		{"nothing", dict{}}, {"none", []string{}}, {"within", dict{{"deeper", []string{"<", ">"}}}},
	}
	for name, d := range map[string]struct {
		text []byte
		want any
	}{
		"odd": {plist(odd), map[string]any{
			"text": "a <b> & \"c\" 'ü'", "empty": "", "no": false, "negative": -1,
			"nothing": map[string]any{}, "none": []any{}, "within": map[string]any{"deeper": []any{"<", ">"}},
		}},
		"agent": {Agent("/Users/d & d"), map[string]any{
			"Label":                  "io.github.tunneld.tunneld",
			"ProgramArguments":       []any{"/Library/PrivilegedHelperTools/io.github.tunneld.tunneld/tunneld", "run", "--service"},
			"LimitLoadToSessionType": []any{"Aqua", "Background"},
			"RunAtLoad":              true, "KeepAlive": true, "ThrottleInterval": 1, "ProcessType": "Interactive", "ExitTimeOut": 10,
			"StandardErrorPath": "/Users/d & d/Library/Logs/tunneld.log",
		}},
		"helper": {Helper(501, socket), map[string]any{
			"Label": "io.github.tunneld.tunneld-helper.501",
			"ProgramArguments": []any{
				"/Library/PrivilegedHelperTools/io.github.tunneld.tunneld/tunneld-helper", "serve", "--inetd", "--idle", "10s",
				"--policy", "/etc/tunneld/helper/501.json",
			},
			"inetdCompatibility": map[string]any{"Wait": true},
			"Sockets": map[string]any{"Listeners": map[string]any{
				"SockType": "stream", "SockPathName": socket, "SockPathOwner": 501, "SockPathMode": 384,
			}},
			"ThrottleInterval": 1, "ProcessType": "Interactive", "Umask": 18,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parsePlist(d.text)
			if err != nil {
				t.Fatalf("%v in\n%s", err, d.text)
			}
			if diff := cmp.Diff(d.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// parsePlist reads a property list, strictly: nothing between the elements but
// space, each key with a value, no key twice, and only the types that there are.
func parsePlist(text []byte) (any, error) {
	p := &plistParser{xml.NewDecoder(bytes.NewReader(text))}
	start, err := p.next()
	if err != nil || start.Name.Local != "plist" || len(start.Attr) != 1 || start.Attr[0].Value != "1.0" {
		return nil, fmt.Errorf("it begins with %v: %w", start, err)
	}
	start, err = p.next()
	if err != nil {
		return nil, err
	}
	value, err := p.value(start)
	if err != nil {
		return nil, err
	}
	if _, err := p.next(); !errors.Is(err, errEnd) {
		return nil, fmt.Errorf("there is more than one value: %w", err)
	}
	if _, err := p.next(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("there is something behind it: %w", err)
	}
	return value, nil
}

type plistParser struct{ *xml.Decoder }

var errEnd = errors.New("the end of an element")

// next is the next element's start, or errEnd.
func (p *plistParser) next() (xml.StartElement, error) {
	for {
		token, err := p.Token()
		if err != nil {
			return xml.StartElement{}, err
		}
		switch token := token.(type) {
		case xml.StartElement:
			return token, nil
		case xml.EndElement:
			return xml.StartElement{}, errEnd
		case xml.CharData:
			if len(bytes.TrimSpace(token)) > 0 {
				return xml.StartElement{}, fmt.Errorf("%q is between elements", token)
			}
		}
	}
}

func (p *plistParser) value(start xml.StartElement) (any, error) {
	if start.Name.Local == "dict" {
		return p.dict()
	}
	if start.Name.Local == "array" {
		all := []any{}
		for {
			start, err := p.next()
			if errors.Is(err, errEnd) {
				return all, nil
			}
			if err != nil {
				return nil, err
			}
			v, err := p.value(start)
			if err != nil {
				return nil, err
			}
			all = append(all, v)
		}
	}
	var text string
	if err := p.DecodeElement(&text, &start); err != nil {
		return nil, err
	}
	switch name := start.Name.Local; {
	case name == "string":
		return text, nil
	case name == "integer":
		return strconv.Atoi(text)
	case (name == "true" || name == "false") && text == "":
		return name == "true", nil
	}
	return nil, fmt.Errorf("<%s>%s is no value", start.Name.Local, text)
}

func (p *plistParser) dict() (any, error) {
	d := map[string]any{}
	for {
		start, err := p.next()
		if errors.Is(err, errEnd) {
			return d, nil
		}
		if err != nil || start.Name.Local != "key" {
			return nil, fmt.Errorf("<%s> where a key should be: %w", start.Name.Local, err)
		}
		var key string
		if err := p.DecodeElement(&key, &start); err != nil {
			return nil, err
		}
		if _, twice := d[key]; twice {
			return nil, fmt.Errorf("the key %s is there twice", key)
		}
		if start, err = p.next(); err != nil {
			return nil, fmt.Errorf("the key %s has no value: %w", key, err)
		}
		if d[key], err = p.value(start); err != nil {
			return nil, err
		}
	}
}

func FuzzPlist(f *testing.F) {
	f.Add("key", "value")
	f.Add("<key>", "&amp;]]>\x00\xff")
	f.Fuzz(func(t *testing.T, key, value string) {
		if _, err := parsePlist(plist(dict{{key, value}, {key + "2", []string{value}}})); err != nil {
			t.Error(err)
		}
	})
}
