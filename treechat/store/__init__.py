"""Conversations in one SQLite file: `Store` is the door, the rest are its rooms.

    ids  codec  values           identities; values as columns; what the store gives beside `treechat.tree`
    schema  connection  failures tables and migrations; one connection under a lock; SQLite's errors as ours
    conversations  nodes  spans  what is kept
    replies  imports  owner      a reply or an import in the making, and whose it is
    events  names  search  checks   undo; names of nodes; finding text; finding damage
    backup  reading              a copy of the whole file; reads that hold up nobody

Any program reads the file: `sqlite3 treechat.db "SELECT line FROM tree"` prints every conversation.
"""

from treechat.store.ids import new_id, short_id
from treechat.store.reading import Reader
from treechat.store.store import Store
from treechat.store.values import ConversationInfo, Event, Hit, NewNode, Resolved

__all__ = ["ConversationInfo", "Event", "Hit", "NewNode", "Reader", "Resolved", "Store", "new_id", "short_id"]
