"""Conversations in one SQLite file. `Store` is the public class; each other module is one part of it.

    values  codec                       ids and the values that the store takes and returns; values as columns
    schema  connection  sqlite_errors   tables and migrations; a locked connection; SQLite's errors as StoreError
    trees  conversations  nodes  spans  structure and its repair; the rows
    replies  imports  owner             streaming replies; unfinished imports; the process that writes them
    undo  names  search  meta           changes and undo; names of nodes; full text; settings of a conversation
    checks  backup  reader              damage; a copy of the file; interruptible reads in another thread

Any program can read the file: `sqlite3 treechat.db "SELECT line FROM tree"` prints all conversations.
"""

from treechat.store.reader import Reader
from treechat.store.store import Store
from treechat.store.values import ConversationInfo, Event, Hit, NamedNode, NewNode, new_id, short_id

__all__ = ["ConversationInfo", "Event", "Hit", "NamedNode", "NewNode", "Reader", "Store", "new_id", "short_id"]
