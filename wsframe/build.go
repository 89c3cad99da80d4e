package wsframe

// Append appends a whole frame as a server sends it.
func Append(dst []byte, kind Kind, payload []byte) []byte {
	return append(appendHead(dst, kind, len(payload), 0), payload...)
}

// AppendMasked appends a whole frame as a client sends it.
func AppendMasked(dst []byte, kind Kind, payload []byte, key [4]byte) []byte {
	dst = append(appendHead(dst, kind, len(payload), 0x80), key[:]...)
	for i, b := range payload {
		dst = append(dst, b^key[i&3])
	}
	return dst
}

// ClosePayload is what a close frame with that code and no reason says.
func ClosePayload(code uint16) []byte { return []byte{byte(code >> 8), byte(code)} }

func appendHead(dst []byte, kind Kind, length int, mask byte) []byte {
	dst = append(dst, 0x80|opcodes[kind])
	switch {
	case length < 126:
		return append(dst, mask|byte(length))
	case length < 1<<16:
		return append(dst, mask|126, byte(length>>8), byte(length))
	}
	dst = append(dst, mask|127)
	for shift := 56; shift >= 0; shift -= 8 {
		dst = append(dst, byte(uint64(length)>>shift))
	}
	return dst
}
