package lull

import "fmt"

// State is where an environment stands on the ladder.
//
//	           start                    idle for            idle for              idle for
//	(nothing) ───────▶ starting ─▶ running ───────▶ paused ───────▶ hibernated ───────▶ stopped
//	                     │          ▲   ▲  idle.pause │  idle.hibernate │  idle.stop
//	                     ▼          │   └── resume ───┘                 │
//	                   failed       └────────────── wake ──────────────┘
//
// Numbers are written to disk: add new ones at the end, never reuse one.
type State uint8

const (
	Starting   State = 1 // its process has been asked for and is not ready yet
	Running    State = 2 // the only state in which bytes are written to it
	Paused     State = 3 // no CPU; memory and sockets kept
	Hibernated State = 4 // a snapshot on disk; no process, no memory
	Stopped    State = 5 // gone; final
	Failed     State = 6 // died or never became ready; final
)

var stateNames = map[State]string{
	Starting: "starting", Running: "running", Paused: "paused",
	Hibernated: "hibernated", Stopped: "stopped", Failed: "failed",
}

var moves = map[State][]State{
	Starting:   {Running, Stopped, Failed},
	Running:    {Paused, Stopped, Failed},
	Paused:     {Running, Hibernated, Stopped, Failed},
	Hibernated: {Running, Stopped, Failed},
}

// String returns the state's name in lower case, as commands and the API print it.
func (s State) String() string {
	if name, ok := stateNames[s]; ok {
		return name
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// MarshalText writes the state's name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *State) UnmarshalText(text []byte) error {
	for state, name := range stateNames {
		if name == string(text) {
			*s = state
			return nil
		}
	}
	return fmt.Errorf("unknown state %q", text)
}

// CanBecome reports whether the ladder has a step from s to next.
func (s State) CanBecome(next State) bool {
	for _, to := range moves[s] {
		if to == next {
			return true
		}
	}
	return false
}

// Final reports whether no step leads out of s.
func (s State) Final() bool { return len(moves[s]) == 0 }
