package store

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/lull-dev/lull"
)

const (
	// chunkSize makes one write and one fsync per megabyte.
	chunkSize = 1 << 20
	// maxArchive bounds one archive. The largest images in use are a few gigabytes.
	maxArchive = 16 << 30

	archivesStream = "OBJ_" + archivesBucket
	chunkPrefix    = "$O." + archivesBucket + ".C."
	metaPrefix     = "$O." + archivesBucket + ".M."
)

// archives is the object store. The objects have the form that all NATS clients know, but they are written and read here:
// the client's Put sends without waiting for the disk, so that a fast sender overruns the server, and its Get must be
// finished by a deadline.
type archives struct {
	js     jetstream.JetStream
	stream jetstream.Stream
	bucket jetstream.ObjectStore
	room   func() error // whether the disk has room for another chunk
}

func openArchives(ctx context.Context, js jetstream.JetStream, room func() error) (*archives, error) {
	bucket, err := js.ObjectStore(ctx, archivesBucket)
	if err != nil {
		return nil, err
	}
	stream, err := js.Stream(ctx, archivesStream)
	if err != nil {
		return nil, err
	}
	return &archives{js: js, stream: stream, bucket: bucket, room: room}, nil
}

// metaSubject is where the description of the object with this name lies; its chunks lie at chunkPrefix + id. Names are
// used once, so the id of the chunks is the name.
func metaSubject(id string) string {
	return metaPrefix + base64.URLEncoding.EncodeToString([]byte(id))
}

// put stores what r gives under id, noting whose it is, and returns its size. Every chunk is on disk before the next is
// read.
func (a *archives) put(ctx context.Context, app, id string, r io.Reader) (lull.Size, error) {
	info := jetstream.ObjectInfo{
		ObjectMeta: jetstream.ObjectMeta{
			Name: id, Description: app, Opts: &jetstream.ObjectMetaOptions{ChunkSize: chunkSize},
		},
		Bucket: archivesBucket, NUID: id,
	}
	sum, chunk := sha256.New(), make([]byte, chunkSize)
	for {
		n, err := io.ReadFull(r, chunk)
		if err == io.EOF {
			break
		}
		if err != nil && err != io.ErrUnexpectedEOF {
			return 0, err
		}
		if info.Size += uint64(n); info.Size > maxArchive {
			return 0, &lull.Error{Kind: lull.KindTooLarge, Message: fmt.Sprintf("the release is larger than %s", lull.Size(maxArchive))}
		}
		if err := a.putChunk(ctx, id, chunk[:n]); err != nil {
			return 0, err
		}
		sum.Write(chunk[:n])
		info.Chunks++
	}
	info.Digest = jetstream.GetObjectDigestValue(sum)
	return lull.Size(info.Size), a.putInfo(ctx, info)
}

func (a *archives) putChunk(ctx context.Context, id string, chunk []byte) error {
	if err := a.room(); err != nil {
		return err
	}
	_, err := a.js.Publish(ctx, chunkPrefix+id, chunk)
	return err
}

func (a *archives) putInfo(ctx context.Context, info jetstream.ObjectInfo) error {
	data, err := json.Marshal(info)
	if err != nil {
		return err
	}
	msg := nats.NewMsg(metaSubject(info.Name))
	msg.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	msg.Data = data
	_, err = a.js.PublishMsg(ctx, msg)
	return err
}

// get returns a reader of the archive with this id. Its last Read fails if the archive is not what put stored.
func (a *archives) get(ctx context.Context, id string) (io.ReadCloser, error) {
	info, err := a.bucket.GetInfo(ctx, id)
	if err != nil {
		return nil, err
	}
	return &archiveReader{ctx: ctx, stream: a.stream, info: info, sum: sha256.New(), left: info.Chunks}, nil
}

// remove deletes an archive, or what there is of it. The description goes first: chunks without one are swept.
func (a *archives) remove(ctx context.Context, id string) error {
	for _, subject := range []string{metaSubject(id), chunkPrefix + id} {
		if err := a.stream.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
			return err
		}
	}
	return nil
}

// owner returns the app whose archive it is; "" if it is only part of one.
func (a *archives) owner(ctx context.Context, id string) (string, error) {
	info, err := a.bucket.GetInfo(ctx, id)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return info.Description, nil
}

// ids returns the ids of everything that is stored, whole or not.
func (a *archives) ids(ctx context.Context) (map[string]bool, error) {
	ids, err := subjects(ctx, a.stream, chunkPrefix)
	if err != nil {
		return nil, err
	}
	infos, err := subjects(ctx, a.stream, metaPrefix)
	if err != nil {
		return nil, err
	}
	for encoded := range infos {
		if id, err := base64.URLEncoding.DecodeString(encoded); err == nil {
			ids[string(id)] = true
		}
	}
	return ids, nil
}

// archiveReader fetches one chunk after the other, as they are asked for.
type archiveReader struct {
	ctx    context.Context
	stream jetstream.Stream
	info   *jetstream.ObjectInfo
	sum    hash.Hash
	left   uint32 // chunks
	next   uint64 // sequence number to look for the next chunk from
	chunk  []byte // what is left of the current one
	err    error
}

func (r *archiveReader) Read(p []byte) (int, error) {
	for len(r.chunk) == 0 {
		if r.err == nil {
			r.err = r.fetch()
		}
		if r.err != nil {
			return 0, r.err
		}
	}
	n := copy(p, r.chunk)
	r.chunk = r.chunk[n:]
	return n, nil
}

func (r *archiveReader) fetch() error {
	if r.left == 0 {
		if jetstream.GetObjectDigestValue(r.sum) != r.info.Digest {
			return fmt.Errorf("read archive %s: its content is damaged", r.info.Name)
		}
		return io.EOF
	}
	msg, err := r.stream.GetMsg(r.ctx, r.next+1, jetstream.WithGetMsgSubject(chunkPrefix+r.info.NUID))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return fmt.Errorf("read archive %s: %d of %d chunks are missing", r.info.Name, r.left, r.info.Chunks)
	}
	if err != nil {
		return explain("read archive "+r.info.Name, err)
	}
	r.left--
	r.next, r.chunk = msg.Sequence, msg.Data
	r.sum.Write(r.chunk)
	return nil
}

// Close makes further reads fail; it holds nothing that must be given back.
func (r *archiveReader) Close() error {
	if r.err == nil {
		r.err = errors.New("read archive: it has been closed")
	}
	r.chunk = nil
	return nil
}
