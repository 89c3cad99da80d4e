// Package http1 is HTTP/1.1 on the wire (RFC 9110, RFC 9112), for a front door: heads, bodies and trailers, read strictly
// and written back in one form only. What two servers could understand differently is refused, not repaired: that is what
// request smuggling is made of.
//
// Heads are parsed where they lie: a Request or Response refers to the bytes it was parsed from and is valid as long as
// they are.
package http1

// Error says why bytes from outside were refused, and the status that tells so.
type Error struct {
	Status int
	Reason string
}

// Error returns the reason.
func (e *Error) Error() string { return e.Reason }

func bad(reason string) *Error { return &Error{400, reason} }

// The errors of heads and bodies. They are compared by identity.
var (
	ErrBareLF        = bad("a line ends in a bare LF")
	ErrControl       = bad("the head holds a control character")
	ErrRequestLine   = bad("the request line is malformed")
	ErrMethod        = bad("the method is not a token")
	ErrTarget        = bad("the request target is malformed")
	ErrTargetHost    = bad("the request target and Host name different hosts")
	ErrConnect       = &Error{501, "CONNECT is for proxies and this is none"}
	ErrVersion       = &Error{505, "the HTTP version is not 1.0 or 1.1"}
	ErrField         = bad("a header line is malformed")
	ErrFieldName     = bad("a header name is malformed")
	ErrFold          = bad("a header is folded over several lines")
	ErrHostMissing   = bad("there is no Host header")
	ErrHostRepeated  = bad("there is more than one Host header")
	ErrHost          = bad("the Host header is malformed")
	ErrLength        = bad("Content-Length is malformed")
	ErrLengthTwice   = bad("there is more than one Content-Length")
	ErrLengthAndTE   = bad("there is both a Content-Length and a Transfer-Encoding")
	ErrTE            = bad("Transfer-Encoding is malformed or does not end in chunked")
	ErrTEUnsupported = &Error{501, "a Transfer-Encoding other than chunked is not supported"}
	ErrTEVersion     = bad("there is a Transfer-Encoding in an HTTP/1.0 message")
	ErrConnection    = bad("the Connection header is malformed")
	ErrExpect        = &Error{417, "an expectation other than 100-continue is not supported"}
	ErrHeadSize      = &Error{431, "the head is larger than is allowed"}
	ErrFieldCount    = &Error{431, "there are more headers than are allowed"}
	ErrChunk         = bad("a chunk of the body is malformed")
	ErrTrailer       = bad("the trailers are malformed or too large")
	ErrStatusLine    = bad("the status line is malformed")
	ErrUpgrade       = bad("it changes to a protocol nobody asked for")
)
