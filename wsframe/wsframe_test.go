package wsframe

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// event is what a frame comes down to, however it was cut.
type event struct {
	Kind    Kind
	Payload string // of small frames
	Small   bool
	Size    int // of everything that was to be passed on
	Over    bool
}

// follow passes stream in pieces of the sizes that cut returns and checks what must hold after each.
func follow(t testing.TB, stream []byte, cut func(left int) int) (events []event, f Follower) {
	var passed []byte
	for at := 0; at < len(stream); {
		p := stream[at : at+cut(len(stream)-at)]
		at += len(p)
		for len(p) > 0 {
			piece, n := f.Next(p)
			if n <= 0 || n > len(p) {
				t.Fatalf("Next took %d of %d bytes", n, len(p))
			}
			p = p[n:]
			if len(f.kept) > MaxSmall+maxHead {
				t.Fatalf("%d bytes are kept", len(f.kept))
			}
			if piece.Kind == Partial {
				continue
			}
			passed = append(append(passed, piece.Kept...), piece.Bytes...)
			if last := len(events) - 1; !piece.Begins && last >= 0 && events[last].Kind == piece.Kind {
				events[last].Size += len(piece.Kept) + len(piece.Bytes)
				events[last].Over = piece.Ends
				continue
			}
			events = append(events, event{piece.Kind, string(piece.AppendPayload(nil)), piece.Small,
				len(piece.Kept) + len(piece.Bytes), piece.Ends})
		}
	}
	if passed = append(passed, f.Rest()...); !bytes.Equal(passed, stream) {
		t.Fatalf("%d bytes became %d, or changed", len(stream), len(passed))
	}
	return events, f
}

func whole(left int) int { return left }

func TestFrames(t *testing.T) {
	key := [4]byte{1, 2, 3, 4}
	long := strings.Repeat("x", 70_000)
	for _, test := range []struct {
		name   string
		stream []byte
		want   []event
	}{
		{"a small text", Append(nil, Text, []byte("hello")), []event{{Text, "hello", true, 7, true}}},
		{"masked", AppendMasked(nil, Text, []byte("hello"), key), []event{{Text, "hello", true, 11, true}}},
		{"an empty ping", Append(nil, Ping, nil), []event{{Ping, "", true, 2, true}}},
		{"the longest control frame", AppendMasked(nil, Pong, []byte(long[:125]), key), []event{{Pong, long[:125], true, 131, true}}},
		{"the longest small one", AppendMasked(nil, Binary, []byte(long[:256]), key), []event{{Binary, long[:256], true, 264, true}}},
		{"one too long", Append(nil, Text, []byte(long[:257])), []event{{Text, "", false, 261, true}}},
		{"a long one", Append(nil, Text, []byte(long)), []event{{Text, "", false, 70_010, true}}},
		{"a ping inside a message", []byte("\x01\x02ab\x89\x01p\x80\x01c"),
			[]event{{Text, "", false, 4, true}, {Ping, "p", true, 3, true}, {Continuation, "", false, 3, true}}},
		{"compressed", []byte("\xc1\x02ab"), []event{{Text, "", false, 4, true}}},
		{"close", Append(nil, Close, ClosePayload(1001)), []event{{Close, "\x03\xe9", true, 4, true}}},
		{"a reserved opcode", []byte("\x81\x00\x83\x01a more"), []event{{Text, "", true, 2, true}, {Invalid, "", false, 8, false}}},
		{"a control frame that is too long", []byte("\x89\x7e\x00\x7eab"), []event{{Invalid, "", false, 6, false}}},
		{"a control frame in fragments", []byte("\x09\x00ab"), []event{{Invalid, "", false, 4, false}}},
		{"a continuation of nothing", []byte("\x80\x00"), []event{{Invalid, "", false, 2, false}}},
		{"a message inside a message", []byte("\x01\x00\x81\x00"), []event{{Text, "", false, 2, true}, {Invalid, "", false, 2, false}}},
		{"a length that cannot be", []byte("\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff"), []event{{Invalid, "", false, 10, false}}},
		{"a length beyond all bytes", []byte("\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xffabc"), []event{{Binary, "", false, 13, false}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, size := range []int{1, 2, 3, 7, 4096, 1 << 20} {
				got, _ := follow(t, test.stream, func(left int) int { return min(size, left) })
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("cut by %d (-want +got):\n%s", size, diff)
				}
			}
		})
	}
}

func TestBetween(t *testing.T) {
	var f Follower
	for _, step := range []struct {
		bytes                     string
		between, messages, midway bool
	}{
		{"\x81", false, false, true},
		{"\x02a", false, false, true},
		{"b", true, true, false},
		{"\x01\x01a", true, false, false},
		{"\x89\x00", true, false, false},
		{"\x80\x00", true, true, false},
		{"\x82\x7e\x10\x00abc", false, false, true},
		{strings.Repeat("x", 4093), true, true, false},
		{"\x88\x00", false, false, false},
	} {
		for p := []byte(step.bytes); len(p) > 0; {
			_, n := f.Next(p)
			p = p[n:]
		}
		got := fmt.Sprint(f.Between(), f.BetweenMessages(), f.Midway())
		if want := fmt.Sprint(step.between, step.messages, step.midway); got != want {
			t.Errorf("after %.9q between, between messages, midway are %s, want %s", step.bytes, got, want)
		}
	}
	if !f.Closed() {
		t.Error("it has not seen the close frame")
	}
}

// TestAnyCut writes frames that are valid and cuts them anywhere.
func TestAnyCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []byte
		ends := map[int]bool{0: true}
		for range rapid.IntRange(0, 8).Draw(t, "frames") {
			kind := rapid.SampledFrom([]Kind{Text, Binary, Ping, Pong}).Draw(t, "kind")
			size := rapid.SampledFrom([]int{0, 1, 125, 126, 127, 256, 257, 65535, 65536, 70000}).Draw(t, "size")
			if !kind.Data() {
				size = min(size, maxControl)
			}
			if payload := make([]byte, size); rapid.Bool().Draw(t, "masked") {
				all = AppendMasked(all, kind, payload, [4]byte{9, 8, 7, 6})
			} else {
				all = Append(all, kind, payload)
			}
			ends[len(all)] = true
		}
		var f Follower
		for at := 0; at < len(all); {
			p := all[at : at+min(rapid.IntRange(1, 40000).Draw(t, "piece"), len(all)-at)]
			at += len(p)
			for len(p) > 0 {
				_, n := f.Next(p)
				p = p[n:]
			}
			if f.Between() != ends[at] {
				t.Fatalf("at %d of %d between is %v", at, len(all), f.Between())
			}
		}
	})
}

func TestFollowerIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(Follower{}); size > 48 {
		t.Errorf("it takes %d bytes", size)
	}
	var f Follower
	frame := AppendMasked(nil, Text, []byte("hello"), [4]byte{1, 2, 3, 4})
	var buf [MaxSmall]byte
	if n := testing.AllocsPerRun(100, func() {
		piece, _ := f.Next(frame)
		piece.AppendPayload(buf[:0])
	}); n > 0 {
		t.Errorf("a frame costs %v allocations", n)
	}
}

// FuzzFollower cuts anything anywhere: the events are the same, no byte is lost, and nothing panics.
func FuzzFollower(f *testing.F) {
	f.Add([]byte("\x81\x05hello\x89\x00"), []byte{1, 3})
	f.Add([]byte("\x81\x85\x01\x02\x03\x04hello\x88\x82\x00\x00\x00\x00\x03\xe9"), []byte{2})
	f.Add([]byte("\x01\x00\x8a\x00\x80\x7e\x01\x00"+strings.Repeat("x", 256)), []byte{200, 9})
	f.Add([]byte("\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff"), []byte{1})
	f.Add([]byte("\xc1\x02ab\x83\x00\x81\x00"), []byte{0})
	f.Fuzz(func(t *testing.T, stream, cuts []byte) {
		want, _ := follow(t, stream, whole)
		i := 0
		got, _ := follow(t, stream, func(left int) int {
			if len(cuts) == 0 {
				return 1
			}
			i++
			return min(int(cuts[i%len(cuts)])+1, left)
		})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("cut and uncut differ (-uncut +cut):\n%s", diff)
		}
	})
}
