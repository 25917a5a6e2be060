package logontask

import (
	"bytes"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/tunneld/tunneld/internal/setup"
	"github.com/tunneld/tunneld/internal/setup/setuptest"
)

const (
	sid          = "S-1-5-21-1111111111-2222222222-3333333333-1001"
	programFiles = `C:\Program Files`
	system       = `C:\Windows\System32`
)

func wish(without ...string) Wish {
	const state = `C:\Users\dev\.local\state\tunneld`
	return Wish{
		SID: sid, ProgramFiles: programFiles, System: system,
		State: state, Environment: state + `\environment.json`, Missing: []string{`C:\Users\dev\.local`},
		Content: map[string][]byte{"tunneld": []byte("d"), "tunnelctl": []byte("c")},
		Without: without,
	}
}

func TestPlan(t *testing.T) {
	plan, err := Plan(wish())
	if err != nil {
		t.Fatal(err)
	}
	setuptest.Golden(t, "plan.txt", setuptest.Lines(plan))
	setuptest.Check(t, plan)
	for _, i := range plan {
		if i.Kind == setup.File && len(i.Content) == 0 {
			t.Errorf("%s is empty", i.Path)
		}
	}
	if plan, err = Plan(wish(Steps()...)); err != nil || len(plan) > 0 {
		t.Errorf("%s %v; want nothing", setuptest.Lines(plan), err)
	}
	for _, wrong := range []string{"", "dev", "S-1-", "S-1-5' -or '1", `S-1-5\..\..`, "s-1-5-21"} {
		w := wish()
		w.SID = wrong
		if _, err := Plan(w); err == nil {
			t.Errorf("SID %q: no error", wrong)
		}
	}
}

func definition(t *testing.T, program string) string {
	t.Helper()
	data, err := Definition(sid, program, system)
	if err != nil {
		t.Fatal(err)
	}
	text, err := decode(data)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// decode is the text of a file in UTF-16, little end first, which begins with saying so.
func decode(data []byte) (string, error) {
	if len(data)%2 != 0 || !bytes.HasPrefix(data, []byte{0xFF, 0xFE}) {
		return "", fmt.Errorf("%d bytes that begin with % x", len(data), data[:min(2, len(data))])
	}
	var units []uint16
	for i := 2; i < len(data); i += 2 {
		units = append(units, binary.LittleEndian.Uint16(data[i:]))
	}
	return string(utf16.Decode(units)), nil
}

func TestDefinition(t *testing.T) {
	text := definition(t, `C:\Program Files\tunneld\tunneld.exe`)
	setuptest.Golden(t, "task.xml", []byte(strings.ReplaceAll(text, "\r\n", "\n")))
	if strings.Count(text, "\n") != strings.Count(text, "\r\n") {
		t.Error("there are lines that do not end as on Windows")
	}
	if err := checkTask(text); err != nil {
		t.Error(err)
	}
	odd := definition(t, `C:\Prógram & "Files" <x>\𝕏.exe`)
	if err := checkTask(odd); err != nil {
		t.Errorf("%v in %s", err, odd)
	}
	for _, broken := range []struct{ old, new string }{
		{"<Hidden>false</Hidden>", "<Hidden>no</Hidden>"},
		{"<Hidden>false</Hidden>", "<Hidden>false</Hidden><Hidden>false</Hidden>"},
		{"<Hidden>", "<hidden>"},
		{"<Count>255<", "<Count>999<"},
		{"PT1M", "1m"},
		{"<Priority>5<", "<Priority>11<"},
		{"<Triggers>", "<Unknown></Unknown><Triggers>"},
		{"<UserId>", "</LogonTrigger><LogonTrigger><UserId>"},
		{"2004/02/mit/task", "2004/02/task"},
	} {
		wrong := strings.Replace(text, broken.old, broken.new, 1)
		if wrong == text || checkTask(wrong) == nil {
			t.Errorf("%s: nothing is found wrong", broken.new)
		}
	}
}

// An element of the schema has these, in this order, or text that matches.
type element struct {
	children []string
	text     string
}

// schema is what of [MS-TSCH] 2.5 is used, in the order in which Windows exports it.
var schema = map[string]element{
	"Task":             {children: []string{"RegistrationInfo", "Triggers", "Principals", "Settings", "Actions"}},
	"RegistrationInfo": {children: []string{"Description", "URI"}},
	"Triggers":         {children: []string{"LogonTrigger", "TimeTrigger"}},
	"LogonTrigger":     {children: []string{"Repetition", "StartBoundary", "UserId", "Delay"}},
	"TimeTrigger":      {children: []string{"Repetition", "StartBoundary"}},
	"Repetition":       {children: []string{"Interval", "Duration", "StopAtDurationEnd"}},
	"Principals":       {children: []string{"Principal"}},
	"Principal":        {children: []string{"UserId", "LogonType", "RunLevel"}},
	"Settings": {children: []string{
		"MultipleInstancesPolicy", "DisallowStartIfOnBatteries", "StopIfGoingOnBatteries", "AllowHardTerminate",
		"StartWhenAvailable", "RunOnlyIfNetworkAvailable", "IdleSettings", "AllowStartOnDemand", "Enabled", "Hidden",
		"RunOnlyIfIdle", "WakeToRun", "ExecutionTimeLimit", "Priority", "RestartOnFailure",
	}},
	"IdleSettings":     {children: []string{"StopOnIdleEnd", "RestartOnIdle"}},
	"RestartOnFailure": {children: []string{"Interval", "Count"}},
	"Actions":          {children: []string{"Exec"}},
	"Exec":             {children: []string{"Command", "Arguments", "WorkingDirectory"}},

	"Description": {text: ".+"}, "URI": {text: `\\[^\\]+`}, "Command": {text: ".+"}, "Arguments": {text: ".+"},
	"UserId": {text: `S-1-[-0-9]+`}, "LogonType": {text: "InteractiveToken"}, "RunLevel": {text: "LeastPrivilege"},
	"MultipleInstancesPolicy": {text: "IgnoreNew"}, "StartBoundary": {text: `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d`},
	"Interval": {text: `PT\d+M`}, "ExecutionTimeLimit": {text: `PT\d+[HMS]`},
	"Count": {text: `[1-9]|[1-9]\d|1\d\d|2[0-4]\d|25[0-5]`}, "Priority": {text: `\d|10`},
}

const boolean = "true|false"

// checkTask returns what is wrong with a task by the schema.
func checkTask(text string) error {
	d := xml.NewDecoder(strings.NewReader(text))
	d.CharsetReader = func(charset string, in io.Reader) (io.Reader, error) {
		if charset != "UTF-16" {
			return nil, fmt.Errorf("the encoding is said to be %s", charset)
		}
		return in, nil // decoded before
	}
	for {
		token, err := d.Token()
		if err != nil {
			return err
		}
		if start, ok := token.(xml.StartElement); ok {
			if start.Name.Local != "Task" {
				return fmt.Errorf("the root is %s", start.Name.Local)
			}
			if err := checkElement(d, start); err != nil {
				return err
			}
			if _, err := d.Token(); err == nil {
				_, err = d.Token() // the last line's end
				if !errors.Is(err, io.EOF) {
					return fmt.Errorf("there is something behind the task: %w", err)
				}
			}
			return nil
		}
	}
}

func checkElement(d *xml.Decoder, start xml.StartElement) error {
	name := start.Name.Local
	if start.Name.Space != "http://schemas.microsoft.com/windows/2004/02/mit/task" {
		return fmt.Errorf("%s is in the name space %q", name, start.Name.Space)
	}
	rule, known := schema[name]
	if !known {
		rule.text = boolean
	}
	var had []string
	var text strings.Builder
	for {
		token, err := d.Token()
		if err != nil {
			return err
		}
		switch token := token.(type) {
		case xml.CharData:
			text.Write(token)
		case xml.StartElement:
			had = append(had, token.Name.Local)
			if err := checkElement(d, token); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		case xml.EndElement:
			return rule.check(name, had, text.String())
		}
	}
}

func (e element) check(name string, had []string, text string) error {
	if e.text != "" {
		if len(had) > 0 || !regexp.MustCompile(`^(?:`+e.text+`)$`).MatchString(text) {
			return fmt.Errorf("%s is %q with %v; want %s", name, text, had, e.text)
		}
		return nil
	}
	last := -1
	for _, child := range had {
		at := slices.Index(e.children, child)
		if at <= last {
			return fmt.Errorf("%s has %v; want of %v, in this order", name, had, e.children)
		}
		last = at
	}
	if strings.TrimSpace(text) != "" {
		return fmt.Errorf("%s has the text %q", name, text)
	}
	return nil
}

// The daemon's limits are those that are meant, where the scheduler's usual ones would
// end it, or hold it back.
func TestLimits(t *testing.T) {
	text := definition(t, `C:\x.exe`)
	for _, want := range []string{
		"<ExecutionTimeLimit>PT0S</", "<DisallowStartIfOnBatteries>false</", "<StopIfGoingOnBatteries>false</",
		"<RunLevel>LeastPrivilege</", "<LogonType>InteractiveToken</", "<RunOnlyIfIdle>false</", "<StopOnIdleEnd>false</",
		"<Arguments>--headless &#34;C:\\x.exe&#34; run --service</", `<Principal id="Author">`, `<Actions Context="Author">`,
		`<Task xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task" version="1.2">`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is missing", want)
		}
	}
	if n := strings.Count(text, "<UserId>"+sid+"</UserId>"); n != 2 {
		t.Errorf("the user is named %s times; want for the trigger, and for who runs it", strconv.Itoa(n))
	}
}
