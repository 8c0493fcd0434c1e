"""What can be observed besides cells of the grid; one file each."""

from sciladm.observe.derived import Derived as Derived
from sciladm.observe.means import AreaMean as AreaMean
from sciladm.observe.points import Points as Points
from sciladm.observe.rows import Operator as Operator
from sciladm.observe.rows import Readings as Readings
from sciladm.observe.rows import Rows as Rows
from sciladm.observe.weighted import Weighted as Weighted
