// Package logontask plans tunneld as a service of a Windows machine, and has its task
// scheduler do its part: the daemon is a task that runs in the session of its user,
// from logon on. A service of Windows' own would have neither the user's credentials
// nor their network drives, or take their password.
package logontask

import (
	"bytes"
	"encoding/binary"
	"encoding/xml"
	"fmt"
	"strings"
	"unicode/utf16"
)

// TaskName is what the task scheduler knows the daemon of a user by, who is named by
// their SID. It is in no folder, since schtasks removes none.
func TaskName(sid string) string { return "tunneld-" + sid }

// The parts of a task, in the order of the schema that Windows' own exports have: see
// [MS-TSCH], section 2.5. What may stand in any order there does here as well.
type (
	task struct {
		XMLName      xml.Name     `xml:"http://schemas.microsoft.com/windows/2004/02/mit/task Task"`
		Version      string       `xml:"version,attr"`
		Registration registration `xml:"RegistrationInfo"`
		Triggers     triggers
		Principal    principal `xml:"Principals>Principal"`
		Settings     settings
		Actions      actions
	}
	registration struct {
		Description string
		URI         string
	}
	triggers struct {
		LogonTrigger logonTrigger
		TimeTrigger  timeTrigger
	}
	logonTrigger struct {
		UserID string `xml:"UserId"`
	}
	timeTrigger struct {
		Repetition    repetition
		StartBoundary string
	}
	repetition struct {
		Interval          string
		StopAtDurationEnd bool
	}
	principal struct {
		ID        string `xml:"id,attr"`
		UserID    string `xml:"UserId"`
		LogonType string
		RunLevel  string
	}
	settings struct {
		MultipleInstancesPolicy    string
		DisallowStartIfOnBatteries bool
		StopIfGoingOnBatteries     bool
		AllowHardTerminate         bool
		RunOnlyIfNetworkAvailable  bool
		IdleSettings               idleSettings
		AllowStartOnDemand         bool
		Enabled                    bool
		Hidden                     bool
		RunOnlyIfIdle              bool
		WakeToRun                  bool
		ExecutionTimeLimit         string
		Priority                   int
		RestartOnFailure           restart
	}
	idleSettings struct {
		StopOnIdleEnd bool
		RestartOnIdle bool
	}
	restart struct {
		Interval string
		Count    int
	}
	actions struct {
		Context string `xml:",attr"`
		Exec    execute
	}
	execute struct {
		Command   string
		Arguments string
	}
)

// Definition is the task of the daemon of the user with that SID, as schtasks reads
// it: in UTF-16. System is Windows' own directory for programs.
func Definition(sid, program, system string) ([]byte, error) {
	const minute = "PT1M" // the least that there is
	t := task{
		Version: "1.2",
		Registration: registration{
			Description: "Keeps forwards to Kubernetes Services for this user",
			URI:         `\` + TaskName(sid),
		},
		// The scheduler tries again what it could not start, but not what has ended: so
		// it is started each minute, while the user is there, and nothing comes of that
		// while it runs. A repetition of the first trigger would wait for a logon.
		Triggers: triggers{
			LogonTrigger: logonTrigger{UserID: sid},
			TimeTrigger:  timeTrigger{Repetition: repetition{Interval: minute}, StartBoundary: "2026-01-01T00:00:00"},
		},
		Principal: principal{
			ID: "Author", UserID: sid, LogonType: "InteractiveToken", RunLevel: "LeastPrivilege",
		},
		Settings: settings{
			MultipleInstancesPolicy: "IgnoreNew",
			AllowHardTerminate:      true,
			AllowStartOnDemand:      true,
			Enabled:                 true,
			ExecutionTimeLimit:      "PT0S", // none, instead of three days
			Priority:                5,      // normal: the usual 7 is for what may wait
			RestartOnFailure:        restart{Interval: minute, Count: 255},
		},
		// Without a window, and with a console even so: programs that the daemon runs
		// for credentials would else open one each.
		Actions: actions{Context: "Author", Exec: execute{
			Command:   system + `\conhost.exe`,
			Arguments: `--headless "` + program + `" run --service`,
		}},
	}
	text, err := xml.MarshalIndent(t, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the task: %w", err)
	}
	return encode(`<?xml version="1.0" encoding="UTF-16"?>` + "\n" + string(text) + "\n"), nil
}

// encode is text in UTF-16, with its lines ended as Windows does.
func encode(text string) []byte {
	var b bytes.Buffer
	const byteOrderMark = 0xFEFF
	for _, unit := range append([]uint16{byteOrderMark}, utf16.Encode([]rune(strings.ReplaceAll(text, "\n", "\r\n")))...) {
		_ = binary.Write(&b, binary.LittleEndian, unit) // a buffer takes it
	}
	return b.Bytes()
}
